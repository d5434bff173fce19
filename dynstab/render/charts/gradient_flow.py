"""The gradient at every state, measured and bounded."""

from __future__ import annotations

import plotly.graph_objects as go

from dynstab.core.estimate import Label
from dynstab.core.report import Report
from dynstab.render.charts import paint
from dynstab.render.numbers import MEANINGS
from dynstab.render.table import usual_label

TITLE = "Gradient flow"
ABOUT = (
    "The norm of the gradient at each state over that at the last one. The measured gain belongs to the cotangents "
    "that were used; the other lines hold for every loss, each as far as its label says."
)
_SERIES = (
    ("gain", "measured", paint.BLUE, "solid"),
    ("lower", "least over all losses", paint.GREEN, "dash"),
    ("upper", "greatest over all losses", paint.ORANGE, "dash"),
    ("product_upper", "product of the steps' σ max", paint.GREY, "dot"),
)


def figure(report: Report) -> go.Figure | None:
    """One line a quantity, with error bars; None where no gradient was measured."""
    flow = report.measurements.gradient_flow
    drawing = paint.figure(height=360)
    data = paint.state_data((point.state, point.name) for point in flow)
    scale: list[float | None] = [1.0]
    for field, words, color, dash in _SERIES:
        estimates = [getattr(point, field) for point in flow]
        gains = paint.values(estimates, positive=True)
        if not paint.drawable(gains):
            continue
        usual = usual_label(estimates)
        meaning = f" ({MEANINGS[usual].split(' (')[0]})" if usual and usual is not Label.EXACT else ""
        drawing.add_scatter(
            x=[point.state - 0.5 for point in flow], y=gains, name=words + meaning, customdata=data,
            hovertemplate=paint.hover(words), error_y=paint.errors(estimates),
            mode="lines+markers" if field == "gain" else "lines",
            line={"color": color, "dash": dash, "width": 1.8}, marker={"size": 4},
        )  # fmt: skip
        scale += gains if field in ("gain", "upper") else []
    if not drawing.data:
        return None
    paint.decade_axis(drawing, scale, title_text="gain from the output")
    paint.depth_axis(drawing, report)
    return drawing
