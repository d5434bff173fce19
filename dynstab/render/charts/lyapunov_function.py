"""The Lyapunov function along the trajectory: it falls wherever the fixed point attracts."""

from __future__ import annotations

from math import isfinite

import plotly.graph_objects as go

from dynstab.core.report import Report
from dynstab.render.charts import paint

TITLE = "The Lyapunov function along the trajectory"
ABOUT = (
    "ln V at each state, mean over inputs, as far as it stands above rounding. Where it falls at every step, V proves "
    "that the states settle at x*; where it rises, V proves nothing there."
)


def figure(report: Report) -> go.Figure | None:
    """One curve over the states; None where no Lyapunov function was found."""
    structure = report.measurements.structure
    found = structure.lyapunov if structure else None
    numbers = [value if isfinite(value) else None for value in found.values] if found else []
    if len(numbers) < 2 or not paint.drawable(numbers):
        return None
    drawing = paint.figure(height=300, showlegend=False)
    drawing.add_scatter(
        x=list(range(len(numbers))), y=numbers, mode="lines+markers", line={"color": paint.BLUE, "width": 1.6},
        marker={"size": 4}, hovertemplate="state %{x}: ln V = %{y:.4g}<extra></extra>",
    )  # fmt: skip
    drawing.update_xaxes(title_text="state")
    drawing.update_yaxes(title_text="ln V")
    return drawing
