"""A strip with one cell a step: where a network grows and shrinks, at a glance and without a script."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dynstab.core.flag import Severity
from dynstab.core.report import Report
from dynstab.render.charts.paint import DIVERGING
from dynstab.render.numbers import natural_log, number
from dynstab.render.table import rows

LEAST_SCALE = 0.35
"""ln of the gain at which a cell has its full colour, at least: gains near 1 shall look pale."""
UNKNOWN = "#b9bcc2"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One step. `gradient` and `signal` are colours; `severity` is that of the finding on it, or ""."""

    index: int
    title: str
    gradient: str
    signal: str
    severity: Severity | str


def strip(report: Report) -> list[Cell]:
    """A cell for every step: its gain of gradients and of signals."""
    table = rows(report)
    gradients = [_half(natural_log(row.measured.relative_gain.value)) for row in table]
    signals = [natural_log(row.measured.norm_growth.value) for row in table]
    scale = max([LEAST_SCALE, *(abs(log) for log in (*gradients, *signals) if log is not None and math.isfinite(log))])
    return [
        Cell(
            index=row.index,
            title=f"step {row.index} · {row.name} · gradient ln {number(gradient)}, signal ln {number(signal)}",
            gradient=color(gradient, scale),
            signal=color(signal, scale),
            severity=row.flag.severity if row.flag else "",
        )
        for row, gradient, signal in zip(table, gradients, signals, strict=True)
    ]


def color(log: float | None, scale: float) -> str:
    """The colour of ln of a gain: blue shrinks, orange grows, grey is unknown."""
    if log is None or math.isnan(log):
        return UNKNOWN
    share = min(1.0, max(0.0, 0.5 + log / (2 * scale)))
    for (low, before), (high, after) in zip(DIVERGING, DIVERGING[1:], strict=False):
        if share <= high:
            return _mixed(str(before), str(after), (share - float(low)) / (float(high) - float(low)))
    return str(DIVERGING[-1][1])


def _mixed(before: str, after: str, share: float) -> str:
    parts = [(int(before[i : i + 2], 16), int(after[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in parts)


def _half(log: float | None) -> float | None:
    return None if log is None else log / 2
