"""The last values of a few quantities of a run, and what is usual for them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

NORMAL = 1.4826
"""A median absolute deviation times this is the standard deviation of normal scatter."""

RECENT = 10
"""Rows before the newest that say where it came from."""

REFRESH = 16
"""Records after which the usual values are taken anew: medians at every step would cost more than they tell."""


class Series:
    """A sliding window over rows of numbers, NaN where one was not taken.

    Rows live in one array of twice the window's length, so that a record costs one copy of a row.

    Attributes:
        count: rows ever added.
    """

    def __init__(self, window: int) -> None:
        self.window, self.count = window, 0
        self._buffer: Array = np.empty((2 * window, 0))
        self._end = 0
        self._usual: tuple[int, Array, Array] | None = None
        self._limits: dict[tuple[float, float, float], Array] = {}

    def add(self, row: Sequence[float] | Array) -> None:
        if self._buffer.shape[1] != len(row):
            self._buffer, self._end, self._usual = np.full((2 * self.window, len(row)), np.nan), 0, None
        if self._end == len(self._buffer):
            self._buffer[: self.window] = self._buffer[self.window :]
            self._end = self.window
        self._buffer[self._end] = row
        self._end += 1
        self.count += 1

    @property
    def untaken(self) -> tuple[float, ...]:
        """A row of which nothing was taken; empty before the first row."""
        return (math.nan,) * self._buffer.shape[1]

    @property
    def rows(self) -> Array:
        """(rows, columns), the newest last; at most `window` rows."""
        return self._buffer[max(0, self._end - self.window) : self._end]

    @property
    def last(self) -> Array:
        """(columns,), the newest row."""
        return self._buffer[self._end - 1]

    def usual(self) -> tuple[Array, Array]:
        """Median and standard deviation by the median absolute deviation of each column, NaN without numbers."""
        known = self._usual
        if known is None or self.count - known[0] >= REFRESH:
            center = _median(self.rows)
            known = self._usual = (self.count, center, NORMAL * _median(np.abs(self.rows - center)))
            self._limits.clear()
        return known[1], known[2]

    def limits(self, *, distance: float, deviations: float, least: float) -> Array:
        """What lies above the usual by a distance and by so many deviations, of which one is `least` at least."""
        center, scatter = self.usual()
        key = distance, deviations, least
        if key not in self._limits:
            self._limits[key] = center + np.maximum(distance, deviations * np.maximum(scatter, least))
        return self._limits[key]

    def recent(self) -> Array:
        """Median of the ten rows before the newest."""
        return _median(self.rows[-1 - RECENT : -1])


def _median(rows: Array) -> Array:
    """Along the rows, finite entries alone."""
    finite = np.isfinite(rows)
    if not len(rows):
        return np.full(rows.shape[1], np.nan)
    if finite.all():
        around = [(len(rows) - 1) // 2, len(rows) // 2]
        return np.partition(rows, around, axis=0)[around].mean(axis=0)
    # NaN is sorted behind all numbers: those of a column come first, and where there is none the median is NaN.
    ordered, counts = np.sort(np.where(finite, rows, np.nan), axis=0), finite.sum(axis=0)
    middle = np.stack([np.maximum(counts - 1, 0) // 2, counts // 2])
    return np.take_along_axis(ordered, middle, axis=0).mean(axis=0)


def safe_log(values: Sequence[float]) -> Array:
    """Natural logarithms; -inf for 0, NaN for NaN and below 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(np.asarray(values, dtype=np.float64))
