"""What is written out when a run goes wrong: the last records, and a full analysis of the network as it is then."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from torch import nn

from dynstab.analyze import analyze
from dynstab.capture.capture import one_line, unwrap
from dynstab.core.config import Config
from dynstab.core.flag import Flag, Severity
from dynstab.core.report import write_whole
from dynstab.core.run import PostMortem
from dynstab.monitor.tables import Record

LAST = 64
"""Records that are kept for a post-mortem."""

_STRIKES = ("loss-spike",)
"""Findings below an error that are written out too. An infinite gradient under a loss scale is none: it is skipped."""


class PostMortems:
    """Keeps the last records, and writes them out when something strikes.

    Args:
        beside: the run's store; "a.sqlite" gives "a.step-1200.json" (the analysis, which `dynstab render` shows)
            and "a.step-1200.records.jsonl".
        inputs: of the analysis, None for none. unheard: a context in which the model may run without being heard.
    """

    def __init__(
        self,
        model: nn.Module,
        beside: Path,
        inputs: Any,
        unheard: Callable[[], AbstractContextManager[None]],
        *,
        seed: int = 0,
    ) -> None:
        self._model, self._beside, self._inputs, self._seed = model, beside, inputs, seed
        self._unheard = unheard
        self._last: deque[Record] = deque(maxlen=LAST)
        self._calm = LAST

    def add(self, record: Record, flags: Sequence[Flag]) -> PostMortem | None:
        """Take a record in, with what was found in it; the post-mortem, where one was due and is written.

        One is due at a spike of the loss and at any error, a loss that is not finite among them, unless there was
        one within the last `LAST` records: a run that is lost is not written out at every step.

        Raises:
            ReportError: the files cannot be written.
        """
        self._last.append(record)
        struck = next((flag for flag in flags if flag.severity is Severity.ERROR or flag.name in _STRIKES), None)
        calm, self._calm = self._calm, 0 if struck else self._calm + 1
        if struck is None or calm < LAST:
            return None
        return self._write(record.step, f"{struck.code} {struck.name}: {struck.message}")

    def _write(self, step: int, reason: str) -> PostMortem:
        stem = f"{self._beside.stem}.step-{step}"
        write_whole(
            self._beside.with_name(f"{stem}.records.jsonl"),
            "".join(f"{record.model_dump_json()}\n" for record in self._last),
        )
        if self._inputs is None:
            return PostMortem(step=step, reason=reason)
        path = self._beside.with_name(f"{stem}.json")
        try:
            with self._unheard():
                report = analyze(unwrap(self._model), self._inputs, config=Config(effort="quick", seed=self._seed))
            report.save(path)
        except (
            Exception
        ) as error:  # the network is in a state in which anything may fail, and must not end the training
            return PostMortem(step=step, reason=f"{reason} The analysis failed: {one_line(error)}")
        return PostMortem(step=step, reason=reason, report=path.name)
