"""How far each block is from a flow: its sub-steps do not commute, its control Hamiltonian drifts."""

from __future__ import annotations

import plotly.graph_objects as go

from dynstab.core.report import Report
from dynstab.render.charts import paint

TITLE = "Blocks as steps of a flow"
ABOUT = (
    "For blocks of several sub-steps the commutator of two neighbouring ones, over their sum: how much their order "
    "matters. For tied blocks the drift of the control Hamiltonian from its value at the last block. Both are 0 in the "
    "limit of small steps."
)


def figure(report: Report) -> go.Figure | None:
    """One point a block; None where neither was measured."""
    flow = report.measurements.network_flow
    if flow is None or not (flow.sub_steps or flow.hamiltonian):
        return None
    drawing, scale = paint.figure(height=300), []
    if flow.sub_steps:
        found = [each.commutator for each in flow.sub_steps]
        drawing.add_scatter(
            x=[each.first for each in flow.sub_steps], y=paint.values(found, positive=True), name="commutator",
            error_y=paint.errors(found), mode="lines+markers", line={"color": paint.BLUE, "width": 1.5},
            marker={"size": 5}, hovertemplate="step %{x}: %{y:.3g}<extra></extra>",
        )  # fmt: skip
        scale += paint.values(found, positive=True)
        scale += [end for e in found if e.value for end in (e.value - (e.error or 0.0), e.value + (e.error or 0.0))]
    if flow.hamiltonian:
        drift = [abs(value - flow.hamiltonian[-1]) or None for value in flow.hamiltonian]
        first = flow.first or 0
        drawing.add_scatter(
            x=[first + block * flow.period for block in range(len(drift))], y=drift, name="Hamiltonian drift",
            mode="lines+markers", line={"color": paint.ORANGE, "width": 1.5}, marker={"size": 5, "symbol": "diamond"},
            hovertemplate="step %{x}: %{y:.3g}<extra></extra>",
        )  # fmt: skip
        scale += drift
    if not paint.drawable(scale):
        return None
    paint.decade_axis(drawing, scale, title_text="relative")
    paint.depth_axis(drawing, report)
    return drawing
