"""Heatmaps of many series over training: a row for each part of the network, a column for each stretch of steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import plotly.graph_objects as go

from dynstab.render.charts import paint
from dynstab.render.ink import printable, shorten

MOST_COLUMNS = 320
MOST_TICKS = 24
LONGEST_TICK = 22
COLOURED = 0.95
LEAST_SPAN = 0.5
"""The scale never magnifies a map that is flat."""

# Above the map, so that the time axes of all charts begin and end in one line.
_BAR = {"orientation": "h", "x": 1, "xanchor": "right", "y": 1.0, "yanchor": "bottom", "len": 0.4, "thickness": 8}

Rows = Sequence[tuple[int, Sequence[float]]]
Cells = list[list[float | None]]


def figure(rows: Rows, names: Sequence[str], *, unit: str) -> go.Figure | None:
    """The map of (training step, a number around zero for each name); None where there is no finite number.

    The scale ends where `COLOURED` of the numbers lie: a run that blew up still shows what came before. What is
    beyond, or infinite, takes the colour of its end; NaN (not taken) leaves a gap.
    """
    rows = [(step, values) for step, values in rows if not all(map(math.isnan, values))]
    steps, columns = thinned(rows)
    sizes = sorted(abs(value) for column in columns for value in column if math.isfinite(value))
    if not sizes:
        return None
    span = max(LEAST_SPAN, sizes[round(COLOURED * (len(sizes) - 1))])
    count = max(map(len, columns))
    cells = [[_cell(column, row, sizes[-1]) for column in columns] for row in range(count)]
    labels = [paint.label(names[row]) if row < len(names) else str(row) for row in range(count)]
    drawing = paint.figure(height=min(640, max(240, 140 + 20 * count)))
    drawing.add_heatmap(
        x=steps, y=list(range(count)), z=cells, colorscale=paint.DIVERGING, zmin=-span, zmax=span,
        text=[[labels[row]] * len(steps) for row in range(count)],
        colorbar=_BAR | {"title": {"text": unit, "side": "top", "font": {"size": 11}}, "tickvals": _marks(span)},
        hovertemplate="step %{x}<br>%{text}: %{z:.3g}<extra></extra>", hoverongaps=False,
    )  # fmt: skip
    drawing.update_layout(margin_t=52)
    ticks = range(0, count, -(-count // MOST_TICKS))
    shown = [shorten(printable(names[row]), LONGEST_TICK) if row < len(names) else str(row) for row in ticks]
    drawing.update_yaxes(tickvals=list(ticks), ticktext=[paint.label(name) for name in shown], showgrid=False)
    return drawing


def _marks(span: float) -> list[float]:
    """Zero and a round number within the span to both sides: three fit upright over the narrowest map."""
    unit = 10.0 ** math.floor(math.log10(span))
    end = max(factor * unit for factor in (1, 2, 5) if factor * unit <= span)
    return [-end, 0.0, end]


def over_medians(rows: Rows) -> list[tuple[int, list[float]]]:
    """log10 of every number over the median of its series; zero and what was not taken become NaN."""
    count = max((len(values) for _, values in rows), default=0)
    series = [[values[i] for _, values in rows if i < len(values) and 0 < values[i] < math.inf] for i in range(count)]
    usual = [median(values) if values else math.nan for values in series]
    return [(step, [_decades(value, usual[i]) for i, value in enumerate(values)]) for step, values in rows]


def thinned(rows: Rows) -> tuple[list[int], list[list[float]]]:
    """At most `MOST_COLUMNS` columns: of the rows between them, each number the furthest from zero."""
    width = -(-len(rows) // MOST_COLUMNS) or 1
    chunks = [rows[start : start + width] for start in range(0, len(rows), width)]
    return [chunk[0][0] for chunk in chunks], [_merged([values for _, values in chunk]) for chunk in chunks]


def _merged(columns: list[Sequence[float]]) -> list[float]:
    return [
        max((column[row] for column in columns if row < len(column)), key=_prominence)
        for row in range(max(map(len, columns)))
    ]


def _prominence(value: float) -> float:
    return -1.0 if math.isnan(value) else abs(value)


def _decades(value: float, usual: float) -> float:
    if math.isnan(value) or value <= 0:
        return math.nan
    return math.log10(value / usual) if value < math.inf else math.inf


def _cell(column: Sequence[float], row: int, most: float) -> float | None:
    if row >= len(column) or math.isnan(column[row]):
        return None
    return min(most, max(-most, column[row]))
