"""The solver's steps along time: their length, their error, and what the field does meanwhile."""

from __future__ import annotations

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dynstab.core.report import Report
from dynstab.render.charts import paint

TITLE = "Steps of the solver"
ABOUT = (
    "Above, the length of each accepted step and the error that it makes, relative to the state; a cross marks steps "
    "before which attempts were rejected. Below, the logarithmic norm μ₂ of the field's Jacobian, which bounds how "
    "fast two solutions part, mean over inputs, and max Re λ of the worst input."
)


def figure(report: Report) -> go.Figure | None:
    """Two panels over time; None for anything but a flow."""
    flow = report.measurements.flow
    if flow is None or not flow.steps:
        return None
    times = [step.time for step in flow.steps]
    data = [[step.index, f"step {step.index} · t = {step.time:.4g}"] for step in flow.steps]
    drawing = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.09, row_heights=[0.55, 0.45])
    paint.dress(drawing, 420)
    sizes = [abs(step.size) for step in flow.steps]
    errors = paint.values([step.local_error for step in flow.steps], positive=True)
    style = {"mode": "lines+markers", "marker": {"size": 4}, "customdata": data}
    drawing.add_scatter(
        x=times, y=sizes, name="step length h", line={"color": paint.BLUE, "width": 1.6, "shape": "hv"},
        hovertemplate=paint.hover("h"), row=1, col=1, **style,
    )  # fmt: skip
    drawing.add_scatter(
        x=times, y=errors, name="error of the step", line={"color": paint.ORANGE, "width": 1.2, "dash": "dot"},
        hovertemplate=paint.hover("error"), row=1, col=1, **style,
    )  # fmt: skip
    refused = [i for i, step in enumerate(flow.steps) if step.rejected]
    drawing.add_scatter(
        x=[times[i] for i in refused], y=[sizes[i] for i in refused], customdata=[data[i] for i in refused],
        text=[str(flow.steps[i].rejected) for i in refused], mode="markers", name="after rejected attempts",
        marker={"symbol": "x", "size": 7, "color": paint.PURPLE}, showlegend=bool(refused),
        hovertemplate="%{customdata[1]}<br>%{text} rejected before<extra></extra>", row=1, col=1,
    )  # fmt: skip
    rates = (("μ₂(A)", "logarithmic_norm", paint.GREEN), ("max Re λ", "abscissa", paint.GREY))
    for name, attribute, color in rates:
        numbers = paint.values([getattr(step, attribute) for step in flow.steps])
        drawing.add_scatter(
            x=times, y=numbers, name=name, line={"color": color, "width": 1.4},
            hovertemplate=paint.hover(name), row=2, col=1, **style,
        )  # fmt: skip
    paint.decade_axis(drawing, [*sizes, *errors], row=1, col=1)
    drawing.update_yaxes(title_text="per unit time", row=2, col=1)
    drawing.update_xaxes(title_text="t", row=2, col=1)
    return drawing
