"""How the leading exponents of a recurrence settle."""

from __future__ import annotations

import plotly.graph_objects as go

from dynstab.core.report import Report
from dynstab.render.charts import paint

TITLE = "Exponents as they settle"
ABOUT = (
    "The leading QR exponents over the first steps of the sequence, from left to right ever more of them. A curve that "
    "has become level has converged; the band is the standard error at the end."
)
_COLORS = (paint.BLUE, paint.ORANGE, paint.GREEN)


def figure(report: Report) -> go.Figure | None:
    """One curve an exponent; None where there is no series."""
    time, spectrum = report.measurements.time, report.measurements.lyapunov.qr
    if time is None or len(time.running_steps) < 2:
        return None
    drawing = paint.figure(height=320)
    steps = list(time.running_steps)
    for index, (values, color) in enumerate(zip(zip(*time.running, strict=True), _COLORS, strict=False)):
        numbers = [value if abs(value) < float("inf") else None for value in values]
        if not paint.drawable(numbers):
            continue
        drawing.add_scatter(
            x=steps, y=numbers, name=f"exponent {index + 1}", mode="lines", line={"color": color, "width": 1.8},
            hovertemplate=f"after %{{x}} steps, exponent {index + 1}: %{{y:.4g}}<extra></extra>",
        )  # fmt: skip
        if index == 0 and spectrum and spectrum[0].value is not None and spectrum[0].error:
            low, high = spectrum[0].value - spectrum[0].error, spectrum[0].value + spectrum[0].error
            drawing.add_hrect(y0=low, y1=high, fillcolor=paint.BAND, line_width=0, layer="below")
    if not drawing.data:
        return None
    drawing.add_hline(y=0, line={"color": paint.GREY, "width": 1})
    drawing.update_xaxes(title_text="steps", range=[steps[0], steps[-1]])
    drawing.update_yaxes(title_text=report.measurements.lyapunov.unit)
    return drawing
