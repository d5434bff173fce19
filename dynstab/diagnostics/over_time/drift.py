"""How a number of the probes has moved since the run began."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from dynstab.core.run import Probe
from dynstab.diagnostics.over_time.history import FIRST, History


@dataclass(frozen=True, kw_only=True)
class Drift:
    """A number now, at the probe before, and at first (a median); `since` is the step at which it last was there.

    `change` is what both of the last two probes moved by at least, towards where they are now.
    """

    now: float
    before: float
    first: float
    since: int

    @property
    def change(self) -> float:
        both = self.now - self.first, self.before - self.first
        return min(both, key=abs) if both[0] * both[1] > 0 else 0.0


def drift_of(history: History, number: Callable[[Probe], float]) -> Drift | None:
    """None before there are enough probes, or where the newest two are not finite."""
    known = [(probe.step, number(probe)) for probe in history.probes]
    firsts = [value for value in map(number, history.first_probes) if math.isfinite(value)]
    if history.counts[Probe] < FIRST + 2 or not firsts or not all(math.isfinite(value) for _, value in known[-2:]):
        return None
    first, now = median(firsts), known[-1][1]
    # Where it last stood on the other side of half the way.
    half = (now - first) / 2
    at_first = [step for step, value in known if not (value - first) / half > 1] if half else []
    return Drift(now=now, before=known[-2][1], first=first, since=at_first[-1] if at_first else known[0][0])
