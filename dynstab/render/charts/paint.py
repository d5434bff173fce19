"""What all figures share: palette, axes, hover texts, and numbers as plotly takes them.

Colors are those of Okabe & Ito (2008), told apart by color-blind readers, in tones that
stand on white and on black; the scale from shrinking to growing goes from blue to orange.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any

import plotly.graph_objects as go

from dynstab.core.estimate import Estimate
from dynstab.core.report import Report
from dynstab.render.ink import printable, shorten

BLUE, ORANGE, GREEN, PURPLE, GREY = "#2b83ba", "#d9730d", "#1b9e77", "#b5539c", "#8a8f98"
BAND = "rgba(43, 131, 186, 0.18)"
DIVERGING = [[0.0, "#1f5f99"], [0.25, "#7fb2d6"], [0.5, "#e9e9e6"], [0.75, "#f0a860"], [1.0, "#b3520a"]]
LEGEND = {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom", "font": {"size": 11}, "traceorder": "normal"}
LONGEST_NAME = 48
MOST_BLOCKS = 60
"""Block boundaries beyond this many would only be a grey ground."""


def label(name: str) -> str:
    """A name as plotly shows it: its markup and entities are spelled out."""
    return html.escape(shorten(printable(name), LONGEST_NAME), quote=False)


def figure(height: int, **layout: Any) -> go.Figure:
    """An empty figure in the common dress."""
    empty = go.Figure()
    dress(empty, height, **layout)
    return empty


def dress(drawing: go.Figure, height: int, **layout: Any) -> None:
    """Height, margins, font and ground: transparent, so that a page may be light or dark."""
    drawing.update_layout(
        template="none",
        height=height,
        margin={"l": 64, "r": 24, "t": 28, "b": 44},
        font={"family": "system-ui, sans-serif", "size": 12},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hovermode="closest",
        legend=LEGEND,
        **layout,
    )
    drawing.update_xaxes(showgrid=False, zeroline=False, ticks="outside", ticklen=4, showline=True)
    drawing.update_yaxes(showgrid=True, zeroline=False, ticks="", automargin=True)


def depth_axis(drawing: go.Figure, report: Report, **where: Any) -> None:
    """Steps at their index, states half a step before; a thin line where a block begins."""
    count = len(report.system.steps)
    drawing.update_xaxes(range=[-0.9, max(1, count) - 0.1])
    drawing.update_xaxes(title_text="step", **where)
    blocks = [step.block for step in report.system.steps]
    borders = [i - 0.5 for i in range(1, count) if blocks[i] != blocks[i - 1]]
    if len(borders) < min(MOST_BLOCKS, count - 1):
        for x in borders:
            line = {"color": GREY, "width": 1, "dash": "dot"}
            drawing.add_shape(type="line", x0=x, x1=x, y0=0, y1=1, yref="paper", layer="below", line=line, opacity=0.5)
    link(drawing, kind="x")


def link(drawing: go.Figure, **how: Any) -> None:
    """How a page marks the chosen step in this figure; `kind` x, ring, eigenvalues or spectrum."""
    drawing.update_layout(meta={"link": how})


def decade_axis(drawing: go.Figure, values: Iterable[float | None], *, least: float = 0.3, **where: Any) -> None:
    """A logarithmic axis over `values` that never magnifies a flat profile: `least` decades at least."""
    logs = [math.log10(value) for value in values if value is not None and value > 0 and math.isfinite(value)]
    low, high = (min(logs), max(logs)) if logs else (-1.0, 1.0)
    slack = max(0.06 * (high - low), (least - (high - low)) / 2, 0.02)
    ticks = _ticks(low - slack, high + slack)
    drawing.update_yaxes(
        type="log", range=[low - slack, high + slack], fixedrange=True,
        tickmode="array", tickvals=ticks, ticktext=[_tick(value) for value in ticks], **where,
    )  # fmt: skip


def _ticks(low: float, high: float) -> list[float]:
    """From two to eight round numbers between powers of ten `low` and `high`."""
    span = high - low
    if span > 2:
        pace = max(1, math.ceil(span / 6))
        return [10.0**power for power in range(math.ceil(low / pace) * pace, math.floor(high) + 1, pace)]
    mantissas = (1, 3) if span > 1.4 else (1, 2, 5) if span > 0.7 else (1, 1.5, 2, 3, 4, 5, 7)
    grid = [mantissa * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for mantissa in mantissas]
    if span <= 0.31:
        grid += [mantissa * 10.0**power for power in (math.floor(low), math.floor(high)) for mantissa in (8, 9, 1.2)]
    return sorted({float(f"{value:.2g}") for value in grid if low <= math.log10(value) <= high})


def _tick(value: float) -> str:
    if 1e-3 < value < 1e4:
        return f"{value:g}"
    mantissa, _, power = f"{value:.1e}".partition("e")
    return f"{'' if mantissa == '1.0' else mantissa.removesuffix('.0') + '·'}10<sup>{int(power)}</sup>"


def values(estimates: Iterable[Estimate], *, positive: bool = False) -> list[float | None]:
    """Values as plotly draws them: what is not finite, or not `positive` where it must be, leaves a gap."""
    return [_drawable(estimate.value, positive) for estimate in estimates]


def errors(estimates: Iterable[Estimate]) -> dict[str, Any]:
    """Error bars of one standard error or half-width."""
    bars = [_drawable(estimate.error, False) or 0.0 for estimate in estimates]
    return {"type": "data", "array": bars, "thickness": 1.2, "width": 2, "visible": any(bars)}


def drawable(numbers: Sequence[float | None]) -> bool:
    """Is there anything to draw?"""
    return any(number is not None for number in numbers)


def step_data(report: Report) -> list[list[Any]]:
    """For each measured step its index, by which pages link views, and its name for hovering."""
    return [[step.index, f"step {step.index} · {label(step.name)}"] for step in report.measurements.steps]


def state_data(states: Iterable[tuple[int, str]]) -> list[list[Any]]:
    """For each state the step that leaves it, and its name."""
    return [[index, f"state {index} · {label(name)}"] for index, name in states]


def hover(quantity: str, value: str = "%{y:.4g}") -> str:
    return f"%{{customdata[1]}}<br>{quantity}: {value}<extra></extra>"


def _drawable(value: float | None, positive: bool) -> float | None:
    if value is None or not math.isfinite(value) or (positive and value <= 0):
        return None
    return value
