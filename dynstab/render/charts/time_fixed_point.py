"""Eigenvalues of the step where a recurrence rests, against the unit circle."""

from __future__ import annotations

import math

import plotly.graph_objects as go

from dynstab.core.report import Report
from dynstab.render.charts import paint

TITLE = "Eigenvalues where it rests"
ABOUT = (
    "Eigenvalues of the step's Jacobian at the fixed point, of the first input. Inside the unit circle a disturbance "
    "dies out, outside it grows; the outermost one sets the rate of convergence."
)


def figure(report: Report) -> go.Figure | None:
    """The plane with the unit circle; None where there is no fixed point."""
    point = report.measurements.time.fixed_point if report.measurements.time else None
    found = [z for z in point.eigenvalues if all(map(math.isfinite, z))] if point else []
    if not found:
        return None
    drawing = paint.figure(height=380, showlegend=False)
    drawing.add_shape(
        type="circle", x0=-1, x1=1, y0=-1, y1=1, layer="below",
        line={"color": paint.GREEN, "width": 1.5}, fillcolor="rgba(27, 158, 119, 0.08)",
    )  # fmt: skip
    drawing.add_scatter(
        x=[real for real, _ in found], y=[imaginary for _, imaginary in found], mode="markers",
        marker={"size": 6, "color": [paint.ORANGE if math.hypot(*z) > 1 else paint.BLUE for z in found]},
        hovertemplate="λ = %{x:.4g} + %{y:.4g} i<extra></extra>",
    )  # fmt: skip
    reach = 1.08 * max(1.0, *(math.hypot(*z) for z in found))
    drawing.update_xaxes(title_text="Re λ", range=[-reach, reach], showgrid=True)
    drawing.update_yaxes(title_text="Im λ", range=[-reach, reach], scaleanchor="x", scaleratio=1)
    return drawing
