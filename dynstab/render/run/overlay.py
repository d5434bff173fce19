"""Several runs over one axis of training steps."""

from __future__ import annotations

import math

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dynstab.core.run_comparison import RunComparison
from dynstab.core.run_series import Curve, curves
from dynstab.render.charts import paint
from dynstab.render.charts.comparison import COLORS, DASHES

TITLE = "The runs over training"
ABOUT = (
    "One colour a run. A cross marks the last finite number of a run that lost it; the shaded steps are compared below."
)
PANEL = 140


def figure(comparison: RunComparison) -> go.Figure | None:
    """A panel for every curve that at least two runs have; None where there is none."""
    own = [{curve.name: curve for curve in curves(run)} for run in comparison.runs]
    names = dict.fromkeys(name for each in own for name in each)
    shown = [name for name in names if sum(name in each for each in own) > 1]
    if not shown:
        return None
    drawing = make_subplots(rows=len(shown), cols=1, shared_xaxes=True, vertical_spacing=0.2 / len(shown))
    paint.dress(drawing, height=100 + PANEL * len(shown))
    for row, name in enumerate(shown, 1):
        found = [(number, each[name]) for number, each in enumerate(own) if name in each]
        values = [value for number, curve in found for value in _trace(drawing, comparison, number, curve, row)]
        _axis(drawing, found[0][1], values, row)
    drawing.update_xaxes(title_text="training step", row=len(shown), col=1)
    if comparison.tail is not None:
        first, last = comparison.tail
        drawing.add_shape(
            type="rect", x0=first, x1=last, y0=0, y1=1, yref="paper", layer="below", fillcolor=paint.BAND,
            line={"width": 0},
        )  # fmt: skip
    return drawing


def _trace(drawing: go.Figure, comparison: RunComparison, number: int, curve: Curve, row: int) -> list[float | None]:
    y = [_drawable(value, curve) for _, value in curve.points]
    drawing.add_scatter(
        x=[step for step, _ in curve.points], y=y, name=paint.label(comparison.names[number]), mode="lines",
        legendgroup=str(number), showlegend=row == 1, meta={"report": number}, row=row, col=1,
        line={"color": COLORS[number % len(COLORS)], "width": 1.4, "dash": DASHES[number // len(COLORS) % len(DASHES)]},
        hovertemplate=f"step %{{x}}<br>{curve.words}: %{{y:.4g}}<extra>%{{fullData.name}}</extra>",
    )  # fmt: skip
    finite = [i for i, (_, value) in enumerate(curve.points) if math.isfinite(value)]
    if curve.lost is not None and finite:
        drawing.add_scatter(
            x=[curve.points[finite[-1]][0]], y=[y[finite[-1]]], mode="markers", showlegend=False,
            meta={"report": number}, legendgroup=str(number),
            marker={"symbol": "x", "size": 9, "color": COLORS[number % len(COLORS)]},
            hovertemplate=f"not finite from step {curve.lost} on<extra></extra>", row=row, col=1,
        )  # fmt: skip
    return y


def _drawable(value: float, curve: Curve) -> float | None:
    return value if math.isfinite(value) and (value > 0 or not curve.logarithmic) else None


def _axis(drawing: go.Figure, curve: Curve, values: list[float | None], row: int) -> None:
    title = {"text": curve.words.replace(" ", "<br>", 1), "font": {"size": 11}}
    if curve.logarithmic:
        paint.decade_axis(drawing, values, row=row, col=1, title=title)
    else:
        drawing.update_yaxes(title=title, row=row, col=1)
