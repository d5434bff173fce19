"""The network as a graph: states, the steps between them coloured by gain, and the skip paths around them."""

from __future__ import annotations

import math
from typing import Any

import networkx as nx
import plotly.graph_objects as go

from dynstab.core.measurements import StepMeasurement
from dynstab.core.report import Report
from dynstab.render.charts import paint
from dynstab.render.numbers import natural_log

TITLE = "The network"
ABOUT = (
    "Dots are states, squares the steps between them, in reading order; an arc is a skip path that passes a "
    "residual step. The colour is ½ ln χ: orange steps stretch, blue ones shrink, pale ones keep length."
)
ROW = 25
"""Steps in a row: what a wide page and a name when hovering can hold."""
_BEND = 12

Node = tuple[str, int]


def figure(report: Report) -> go.Figure | None:
    """The drawn graph; None without steps, and over time, where all steps are one and stand in a row."""
    if not report.system.steps or report.system.axis == "time":
        return None
    graph = graph_of(report)
    rows = 1 + (len(report.system.steps) - 1) // ROW
    drawing = paint.figure(height=110 + 64 * rows, showlegend=False)
    drawing.update_layout(margin={"l": 8, "r": 8, "t": 24, "b": 8})
    drawing.add_trace(
        _lines(
            [_straight(graph, *edge) for edge in graph.edges if not _is_skip(graph, edge)],
        )
    )
    arcs = [_arc(graph, *edge) for edge in graph.edges if _is_skip(graph, edge)]
    drawing.add_trace(_lines(arcs, color=paint.GREEN))
    drawing.add_trace(_states(graph))
    for squares in _steps(graph):
        if squares.x:
            drawing.add_trace(squares)
    for row in range(rows):
        drawing.add_annotation(x=-0.3, y=-row, text=str(ROW * row), showarrow=False, xanchor="right", opacity=0.7)
    drawing.update_xaxes(visible=False, range=[-1.0, min(ROW, len(report.system.steps)) + 0.3])
    drawing.update_yaxes(visible=False, range=[-rows + 0.25, 0.75])
    places = {str(index): graph.nodes[kind, index]["at"] for kind, index in graph.nodes if kind == "step"}
    paint.link(drawing, kind="ring", places=places, reach=[0.4, 0.2])
    return drawing


def graph_of(report: Report) -> nx.DiGraph:
    """States and steps as nodes, with where they stand, and a skip from source to target of a residual step."""
    graph = nx.DiGraph()
    measured = {step.index: step for step in report.measurements.steps}
    for state in report.system.states:
        graph.add_node(("state", state.index), at=_place(state.index - 0.5), name=state.name)
    for step in report.system.steps:
        gain = _gain(measured.get(step.index))
        graph.add_node(("step", step.index), at=_place(step.index), name=step.name, kind=step.kind, gain=gain)
        for kind, index in (("state", step.source), ("state", step.target)):
            if (kind, index) not in graph:
                graph.add_node((kind, index), at=_place(index - 0.5), name="")
        graph.add_edge(("state", step.source), ("step", step.index))
        graph.add_edge(("step", step.index), ("state", step.target))
        if step.kind == "residual":
            graph.add_edge(("state", step.source), ("state", step.target), skip=True)
    return graph


def _place(position: float) -> tuple[float, float]:
    """Where depth `position` stands: rows of `ROW` steps, read like text."""
    row = max(0, math.floor(position) // ROW)
    return position - ROW * row + 0.5, -float(row)


def _gain(step: StepMeasurement | None) -> float | None:
    log = natural_log(step.rms_gain.value) if step else None
    return None if log is None or not math.isfinite(log) else log / 2


def _is_skip(graph: nx.DiGraph, edge: tuple[Node, Node]) -> bool:
    return bool(graph.edges[edge].get("skip"))


def _straight(graph: nx.DiGraph, a: Node, b: Node) -> list[tuple[float, float]]:
    """A line; where it would cross the page back to the next row, it leaves at the right and enters at the left."""
    (x0, y0), (x1, y1) = graph.nodes[a]["at"], graph.nodes[b]["at"]
    return [(x0, y0), (x1, y1)] if y0 == y1 else [(x0, y0), (x0 + 0.5, y0)]


def _arc(graph: nx.DiGraph, a: Node, b: Node) -> list[tuple[float, float]]:
    """Half an ellipse above the nodes that it passes."""
    (x0, y0), (x1, y1) = graph.nodes[a]["at"], graph.nodes[b]["at"]
    if y0 != y1:
        x1 = x0 + 1.0
    middle, half = (x0 + x1) / 2, (x1 - x0) / 2
    angles = [math.pi * (1 - i / _BEND) for i in range(_BEND + 1)]
    return [(middle + half * math.cos(angle), y0 + 0.42 * math.sin(angle)) for angle in angles]


def _lines(paths: list[list[tuple[float, float]]], color: str = paint.GREY) -> go.Scatter:
    points = [point for path in paths for point in [*path, (None, None)]]
    return go.Scatter(
        x=[x for x, _ in points], y=[y for _, y in points], mode="lines", hoverinfo="skip",
        line={"color": color, "width": 1.5},
    )  # fmt: skip


def _states(graph: nx.DiGraph) -> go.Scatter:
    nodes = [(index, facts) for (kind, index), facts in graph.nodes.items() if kind == "state"]
    return go.Scatter(
        x=[facts["at"][0] for _, facts in nodes], y=[facts["at"][1] for _, facts in nodes], mode="markers",
        marker={"size": 5, "color": paint.GREY},
        customdata=paint.state_data((index, facts["name"]) for index, facts in nodes),
        hovertemplate="%{customdata[1]}<extra></extra>",
    )  # fmt: skip


def _steps(graph: nx.DiGraph) -> list[go.Scatter]:
    """The measured steps in colour, the others hollow."""
    nodes = [(index, facts) for (kind, index), facts in graph.nodes.items() if kind == "step"]
    known = [(index, facts) for index, facts in nodes if facts["gain"] is not None]
    gains = [facts["gain"] for _, facts in known]
    scale = max([0.3, *map(abs, gains)])
    colored = {
        "color": gains, "cmin": -scale, "cmax": scale, "colorscale": paint.DIVERGING,
        "colorbar": {"title": {"text": "½ ln χ"}, "thickness": 12, "outlinewidth": 0},
    }  # fmt: skip
    hollow = [(index, facts) for index, facts in nodes if facts["gain"] is None]
    return [_squares(known, colored), _squares(hollow, {"color": "rgba(0,0,0,0)"})]


def _squares(nodes: list[tuple[int, dict[str, Any]]], marker: dict[str, Any]) -> go.Scatter:
    return go.Scatter(
        x=[facts["at"][0] for _, facts in nodes], y=[facts["at"][1] for _, facts in nodes], mode="markers",
        marker={"symbol": "square", "size": 16, "line": {"width": 1, "color": paint.GREY}, **marker},
        customdata=[
            [index, f"step {index} · {paint.label(facts['name'])}<br>{facts['kind']}, ½ ln χ = {_said(facts['gain'])}"]
            for index, facts in nodes
        ],
        hovertemplate="%{customdata[1]}<extra></extra>",
    )  # fmt: skip


def _said(gain: float | None) -> str:
    return "not measured" if gain is None else f"{gain:.3g}"
