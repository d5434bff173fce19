"""Jumps: a quantity that leaves what was usual for it, by a factor and by many standard deviations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dynstab.diagnostics.over_time.series import Series

WARM_UP = 30
"""Records before anything is called unusual."""

SMALLEST_SCATTER = 0.02
"""Standard deviation of a logarithm below which a jump is not measured: full-batch training hardly scatters."""


@dataclass(frozen=True, kw_only=True)
class Jump:
    """Of one column. `log` is the logarithm of its factor over the median, `deviations` the same in standard
    deviations of the logarithm; `columns` are all that jumped, `index` the first of them, lower layers first."""

    index: int
    log: float
    deviations: float
    columns: tuple[int, ...]

    @property
    def factor(self) -> float:
        return math.exp(self.log)

    @property
    def others(self) -> str:
        """ " (and in 2 more)" where it is not the only one."""
        return f" (and in {len(self.columns) - 1} more)" if len(self.columns) > 1 else ""


def find_jump(series: Series, *, factor: float, deviations: float) -> Jump | None:
    """Which columns of logarithms lie above their median by a factor and by so many deviations now, and suddenly.

    The usual scatter is by the median absolute deviation, so that earlier spikes do not count. What grew over
    the last ten records is a trend: a jump lies above their median too, by half the factor at least.
    """
    if series.count < WARM_UP:
        return None
    above = series.last > series.limits(distance=math.log(factor), deviations=deviations, least=SMALLEST_SCATTER)
    # At nearly all steps this is all that is asked.
    if not above.any():
        return None
    center, scatter = series.usual()
    with np.errstate(invalid="ignore"):
        logs = series.last - center
        counts = logs / np.maximum(scatter, SMALLEST_SCATTER)
        above &= np.isfinite(logs) & (series.last - series.recent() > math.log(factor / 2))
    columns = np.flatnonzero(above)
    if not columns.size:
        return None
    first = int(columns[0])
    return Jump(
        index=first,
        log=float(logs[first]),
        deviations=float(counts[first]),
        columns=tuple(int(column) for column in columns),
    )
