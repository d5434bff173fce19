"""When the next measurement is due: every so many steps, but never for more than a share of the training time."""

from __future__ import annotations

from collections.abc import Callable


class Pace:
    """A measurement that comes `every` so many steps, and waits until the last one has been paid off.

    One that took c seconds is paid off once c / share seconds have passed; until then its turns are skipped.

    Args:
        every: steps, 0 for never. share: of the training time, None for no limit.
        agree: a number of seconds -> the one that all processes go by.
    """

    def __init__(self, every: int, share: float | None, agree: Callable[[float], float]) -> None:
        self.every, self._share, self._agree = every, share, agree
        self._next: int | None = None
        self._paid_at = 0.0

    def due(self, step: int, seconds: float) -> bool:
        """Whether to measure now; `seconds` counts from the start of the run."""
        if not self.every:
            return False
        if self._next is None:
            return True
        if step < self._next:
            return False
        self._next = step + self.every
        # Clocks of processes differ, and all of them must measure or none.
        return self._agree(self._paid_at - seconds) <= 0

    def done(self, step: int, seconds: float, cost: float) -> None:
        """It was measured at `step`, took `cost` seconds and ended at `seconds`."""
        self._next = step + self.every
        self._paid_at = seconds + (cost / self._share if self._share else 0.0)
