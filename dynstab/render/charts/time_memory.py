"""What is left of a gradient so many steps back in time."""

from __future__ import annotations

from math import isfinite, log

import plotly.graph_objects as go

from dynstab.core.report import Report
from dynstab.render.charts import paint

TITLE = "Memory: the gradient through time"
ABOUT = (
    "ln of the gradient at a state over that at the last one, against how many steps lie between them: the root mean "
    "square over isotropic cotangents, mean over inputs. A dotted line marks a twentieth, which sets the reach."
)


def figure(report: Report) -> go.Figure | None:
    """One curve over the lags; None where memory was not measured."""
    time = report.measurements.time
    if time is None or len(time.memory) < 2:
        return None
    numbers = [value if isfinite(value) else None for value in time.memory]
    if not paint.drawable(numbers):
        return None
    drawing = paint.figure(height=300, showlegend=False)
    drawing.add_scatter(
        x=list(time.memory_lags), y=numbers, mode="lines", line={"color": paint.BLUE, "width": 1.8},
        hovertemplate="%{x} steps back: ln %{y:.3g}<extra></extra>",
    )  # fmt: skip
    if any(number is not None and number < -1 for number in numbers):
        drawing.add_hline(y=-log(20), line={"color": paint.GREY, "width": 1, "dash": "dot"})
    reach = time.reach.value
    if reach is not None and isfinite(reach) and reach < time.sequence:
        drawing.add_vline(x=reach, line={"color": paint.ORANGE, "width": 1.2})
        drawing.add_annotation(
            x=reach, y=1, yref="paper", text=f"reach {reach:.3g}", showarrow=False, xanchor="left", yanchor="top",
            font={"size": 11, "color": paint.ORANGE},
        )  # fmt: skip
    drawing.update_xaxes(title_text="steps back", range=[0, time.memory_lags[-1]])
    drawing.update_yaxes(title_text="ln gradient gain")
    return drawing
