"""Exponents of the whole trajectory, both kinds beside each other."""

from __future__ import annotations

import plotly.graph_objects as go

from dynstab.core.report import Report
from dynstab.render.charts import paint

TITLE = "Exponents of the whole trajectory"
ABOUT = (
    "QR exponents (Benettin) and finite-time exponents, ln σ of the product over its length, from the largest "
    "down. Above the line at 0 a direction is stretched, below it shrinks. At finite depth the two may differ."
)


def figure(report: Report) -> go.Figure | None:
    """Both spectra with error bars; None where neither was measured."""
    lyapunov = report.measurements.lyapunov
    drawing = paint.figure(height=340)
    for name, spectrum, color, symbol in (
        ("QR", lyapunov.qr, paint.BLUE, "circle"),
        ("finite-time", lyapunov.finite_time, paint.ORANGE, "diamond"),
    ):
        numbers = paint.values(spectrum)
        if paint.drawable(numbers):
            drawing.add_scatter(
                x=list(range(1, len(numbers) + 1)), y=numbers, name=name, mode="lines+markers",
                error_y=paint.errors(spectrum), line={"color": color, "width": 1},
                marker={"size": 7, "symbol": symbol}, hovertemplate=f"{name} %{{x}}: %{{y:.4g}}<extra></extra>",
            )  # fmt: skip
    if not drawing.data:
        return None
    longest = max(len(lyapunov.qr), len(lyapunov.finite_time))
    drawing.add_hline(y=0, line={"color": paint.GREY, "width": 1})
    drawing.update_xaxes(title_text="index", range=[0.5, longest + 0.5], dtick=1 if longest <= 16 else None)
    drawing.update_yaxes(title_text=lyapunov.unit)
    return drawing
