"""How a monitor ends a training."""

from __future__ import annotations

from collections.abc import Sequence

from dynstab.core.errors import ConfigError, DynstabError
from dynstab.core.flag import Severity
from dynstab.core.run import Incident
from dynstab.monitor.distributed import Processes
from dynstab.monitor.scalars import headline

_AGREE_EVERY = 10
"""Steps after which processes tell each other that one of them is to stop: each time costs a collective."""


class StopTraining(DynstabError):
    """Raised by `Monitor.step` where `stop_on` says so, and by a user's `on_flag`: a `with Monitor(...)` ends quietly.

    Attributes:
        incident: what was found, None where a user raised it or another process found it.
    """

    def __init__(self, reason: Incident | str) -> None:
        self.incident = reason if isinstance(reason, Incident) else None
        super().__init__(headline(reason) if isinstance(reason, Incident) else reason)


class Brake:
    """Stops all processes at one step, once.

    Args:
        stop_on: the severity from which an incident stops the training, None for never.

    Attributes:
        pulled: the training is to stop.

    Raises:
        ConfigError: there is no such severity.
    """

    def __init__(self, stop_on: str | None, processes: Processes) -> None:
        known = [severity.value for severity in Severity]
        if stop_on is not None and stop_on not in known:
            raise ConfigError(f"stop_on={stop_on!r}", expected=f"one of {', '.join(known)}, or None")
        self._rank = None if stop_on is None else Severity(stop_on).rank
        self._processes, self._reason, self._steps = processes, None, 0
        self.pulled = False

    def pull(self, incidents: Sequence[Incident], asked: StopTraining | None) -> None:
        """After every step, with what was found since the last call and what the user's function asked for.

        Raises:
            StopTraining: it is time to stop, for all processes at this step.
        """
        grave = (i for i in incidents if self._rank is not None and i.flag.severity.rank >= self._rank)
        found = next(grave, None)
        self._reason = self._reason or asked or (StopTraining(found) if found else None)
        self._steps += 1
        if self.pulled or not self._agreed():
            return
        self.pulled = True
        raise self._reason or StopTraining("another process stops the training")

    def _agreed(self) -> bool:
        wish = self._reason is not None
        if self._processes.count == 1:
            return wish
        return self._steps % _AGREE_EVERY == 0 and self._processes.largest(float(wish)) > 0
