"""The angle between the directions that grow and those that shrink."""

from __future__ import annotations

import plotly.graph_objects as go

from dynstab.core.report import Report
from dynstab.render.charts import paint

TITLE = "Angle between growing and shrinking directions"
ABOUT = (
    "Share of states, over time and inputs, at which the spans of the covariant Lyapunov vectors that grow and of "
    "those that shrink lie so far apart. Weight near zero means tangencies: the dynamics is not hyperbolic."
)


def figure(report: Report) -> go.Figure | None:
    """A histogram; None where there is nothing to separate."""
    time = report.measurements.time
    if time is None or not time.angle_shares:
        return None
    width = 90 / len(time.angle_shares)
    drawing = paint.figure(height=280, showlegend=False, bargap=0.05)
    drawing.add_bar(
        x=[(i + 0.5) * width for i in range(len(time.angle_shares))],
        y=[100 * share for share in time.angle_shares],
        width=width, marker={"color": paint.BLUE, "line": {"width": 0}},
        hovertemplate="about %{x:.0f} degrees: %{y:.1f} %<extra></extra>",
    )  # fmt: skip
    drawing.update_xaxes(title_text="angle (degrees)", range=[0, 90], dtick=15)
    drawing.update_yaxes(title_text="share of states (%)", rangemode="tozero")
    return drawing
