"""Eigenvalues of the steps in the complex plane, with the disc on which explicit Euler is stable."""

from __future__ import annotations

import math

import plotly.graph_objects as go

from dynstab.core.report import Report
from dynstab.render.charts import paint

TITLE = "Eigenvalues in the complex plane"
ABOUT = (
    "Eigenvalues of the Jacobians J of all steps. Inside the circle |λ| ≤ 1 a step read as explicit Euler is "
    "stable: it is the disc |1 + hλ(A)| ≤ 1 of the vector field A = (J - 1)/h. Choose a step to see its own."
)
MOST = 4000
"""Points that a browser draws without a pause."""

_REACH = 6.0
"""The plane shown reaches at most this far; a few eigenvalues far out would make a dot of the disc."""

Eigenvalue = tuple[int, float, float]


def figure(report: Report) -> go.Figure | None:
    """All eigenvalues, faint; a second, empty trace for those of a chosen step. None where none were found."""
    found = [
        (step.index, real, imaginary)
        for step in report.measurements.steps
        for real, imaginary in step.eigenvalues
        if math.isfinite(real) and math.isfinite(imaginary)
    ]
    if not found:
        return None
    shown, pace = _thinned(found)
    drawing = paint.figure(height=460, showlegend=False)
    drawing.add_scatter(
        x=[round(real, 5) for _, real, _ in shown],
        y=[round(imaginary, 5) for _, _, imaginary in shown],
        customdata=[[index] for index, _, _ in shown],
        mode="markers", name="all steps", marker={"size": 4, "color": paint.BLUE, "opacity": 0.45},
        hovertemplate="step %{customdata[0]}<br>λ = %{x:.4g} + %{y:.4g} i<extra></extra>",
    )  # fmt: skip
    drawing.add_scatter(
        x=[], y=[], mode="markers", name="chosen step", hoverinfo="skip",
        marker={"size": 8, "color": paint.ORANGE, "line": {"width": 1, "color": "#ffffff"}},
    )  # fmt: skip
    drawing.add_shape(
        type="circle", x0=-1, x1=1, y0=-1, y1=1, layer="below",
        line={"color": paint.GREEN, "width": 1.5}, fillcolor="rgba(27, 158, 119, 0.08)",
    )  # fmt: skip
    if pace > 1:
        words = f"{len(found)} in all; of those in the disc, 1 in {pace} is drawn"
        drawing.add_annotation(
            text=words, x=0, y=1.05, xanchor="left", xref="paper", yref="paper", showarrow=False, font={"size": 11}
        )
    reach = min(_REACH, 1.08 * max(1.0, *(max(abs(real), abs(imaginary)) for _, real, imaginary in found)))
    drawing.update_xaxes(title_text="Re λ", range=[-reach, reach], showgrid=True)
    drawing.update_yaxes(title_text="Im λ", range=[-reach, reach], scaleanchor="x", scaleratio=1)
    paint.link(drawing, kind="eigenvalues", target=1)
    return drawing


def _thinned(found: list[Eigenvalue]) -> tuple[list[Eigenvalue], int]:
    """At most about `MOST` to draw: all that lie outside the disc, and every n-th inside it; and n."""
    inside = [each for each in found if math.hypot(each[1], each[2]) <= 1]
    pace = max(1, math.ceil(len(inside) / max(1, MOST - len(found) + len(inside))))
    kept = set(inside[::pace])
    return [each for each in found if each in kept or math.hypot(each[1], each[2]) > 1], pace
