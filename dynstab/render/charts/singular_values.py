"""Singular values of all steps at a glance."""

from __future__ import annotations

import math

import plotly.graph_objects as go

from dynstab.core.report import Report
from dynstab.render.charts import paint

TITLE = "Singular values of the steps"
ABOUT = (
    "One column a step, one row an index from the largest down; the colour is ln σ: orange stretches, blue "
    "shrinks, pale keeps length. Values below a thousandth of the largest share the darkest blue."
)
_FLOOR = math.log(1e-3)


def figure(report: Report) -> go.Figure | None:
    """A heatmap steps x index; None where no step has a list of singular values."""
    steps = report.measurements.steps
    deepest = max((len(step.singular_values) for step in steps), default=0)
    columns = [paint.values(step.singular_values) + [None] * (deepest - len(step.singular_values)) for step in steps]
    logs = [[_log(value) for value in row] for row in zip(*columns, strict=True)]
    known = [value for row in logs for value in row if value is not None]
    if not known:
        return None
    scale = min(-_FLOOR, max(0.3, max(abs(max(known)), abs(max(min(known), max(known) + _FLOOR)))))
    drawing = paint.figure(height=min(460, 180 + 14 * deepest))
    drawing.add_heatmap(
        x=[step.index for step in steps],
        y=list(range(1, deepest + 1)),
        z=[[None if value is None else round(value, 4) for value in row] for row in logs],
        zmin=-scale, zmax=scale, colorscale=paint.DIVERGING, hoverongaps=False,
        colorbar={"title": {"text": "ln σ"}, "thickness": 12, "outlinewidth": 0},
        hovertemplate="step %{x}, index %{y}<br>ln σ = %{z:.3f}<extra></extra>",
    )  # fmt: skip
    drawing.update_yaxes(title_text="index", autorange="reversed", showgrid=False)
    paint.depth_axis(drawing, report)
    drawing.update_layout(shapes=[])
    return drawing


def _log(value: float | None) -> float | None:
    """ln of a singular value; an exact zero stands at the bottom of the scale."""
    if value is None:
        return None
    return math.log(value) if value > 0 else 10 * _FLOOR
