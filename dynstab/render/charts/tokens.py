"""What remains of the differences between tokens along depth."""

from __future__ import annotations

import plotly.graph_objects as go

from dynstab.core.report import Report
from dynstab.render.charts import paint

TITLE = "Rank and similarity of tokens"
ABOUT = (
    "Effective rank of the tokens x features matrix, as a share of the largest possible, and the mean cosine "
    "between tokens. Rank towards 0 with similarity towards 1 is rank collapse."
)


def figure(report: Report) -> go.Figure | None:
    """Both quantities over the states; None where neither was measured."""
    states = report.measurements.states
    data = paint.state_data((state.index, state.name) for state in states)
    drawing = paint.figure(height=300)
    lowest = 0.0
    for name, field, color in (
        ("effective rank", "effective_rank", paint.BLUE),
        ("token similarity", "token_similarity", paint.ORANGE),
    ):
        estimates = [getattr(state, field) for state in states]
        numbers = paint.values(estimates)
        if paint.drawable(numbers):
            drawing.add_scatter(
                x=[state.index - 0.5 for state in states], y=numbers, name=name, customdata=data,
                mode="lines+markers", line={"color": color, "width": 1.8}, marker={"size": 4},
                error_y=paint.errors(estimates), hovertemplate=paint.hover(name),
            )  # fmt: skip
            lowest = min([lowest, *(number for number in numbers if number is not None)])
    if not drawing.data:
        return None
    drawing.update_yaxes(range=[lowest - 0.03, 1.03])
    paint.depth_axis(drawing, report)
    return drawing
