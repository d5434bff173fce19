"""The field's eigenvalues, times the step, over the region in which the solver is stable."""

from __future__ import annotations

import cmath
import math

import plotly.graph_objects as go

from dynstab.core.report import Report
from dynstab.render.charts import paint

TITLE = "hλ over the solver's stability region"
ABOUT = (
    "Eigenvalues λ of the field's Jacobian where each step starts, times its length h. The solver multiplies such a "
    "mode by R(hλ); inside the green line |R| ≤ 1. Left of the vertical axis the equation itself decays: points there "
    "and outside the line grow by the solver alone."
)
MOST = 3000
_ANGLES = 360
_ROUNDS = 4
_FARTHEST = 30.0
"""Islands of stability beyond this are of no use: a step lands on none of them by design."""

_REACH = 8.0
"""The plane shown reaches at most this far."""


def figure(report: Report) -> go.Figure | None:
    """One point for each eigenvalue of each step; None where none was measured."""
    flow = report.measurements.flow
    if flow is None or not flow.stability_polynomial:
        return None
    points = [
        (step.index, step.time, *pair)
        for step in flow.steps
        for pair in step.spectrum
        if all(math.isfinite(part) for part in pair)
    ]
    if not points:
        return None
    points = points[:: math.ceil(len(points) / MOST)]
    drawing = paint.figure(height=460, showlegend=False)
    x, y = boundary(flow.stability_polynomial)
    drawing.add_scatter(
        x=x, y=y, mode="lines", line={"color": paint.GREEN, "width": 1.6}, hoverinfo="skip", name="|R| = 1"
    )
    drawing.add_scatter(
        x=[round(point[2], 5) for point in points],
        y=[round(point[3], 5) for point in points],
        customdata=[[point[0], f"t = {point[1]:.4g}"] for point in points],
        mode="markers", marker={"size": 5, "color": paint.BLUE, "opacity": 0.5}, name="hλ",
        hovertemplate="step %{customdata[0]}, %{customdata[1]}<br>hλ = %{x:.4g} + %{y:.4g} i<extra></extra>",
    )  # fmt: skip
    farthest = max(max(abs(point[2]), abs(point[3])) for point in points)
    region = max(abs(part) for part in (*x, *y) if part is not None)
    reach = min(max(1.1 * region, 1.1 * farthest), max(_REACH, 1.3 * region))
    drawing.update_xaxes(title_text="Re hλ", range=[-reach, 0.5 * reach], showgrid=True)
    height = max(0.75 * reach, 1.08 * max(abs(part) for part in y if part is not None))
    drawing.update_yaxes(title_text="Im hλ", range=[-height, height], scaleanchor="x", scaleratio=1)
    drawing.add_vline(x=0, line={"color": paint.GREY, "width": 1, "dash": "dot"})
    return drawing


def boundary(polynomial: tuple[float, ...]) -> tuple[list[float | None], list[float | None]]:
    """The line |R(z)| = 1: all roots of R(z) = e^(i angle), followed from one angle to the next."""
    degree = len(polynomial) - 1
    radius = abs(polynomial[-1]) ** (-1 / degree)
    roots = [radius * (0.4 + 0.9j) ** power for power in range(degree)]
    branches: list[list[complex]] = [[] for _ in roots]
    for step in range(_ANGLES + 1):
        target = cmath.exp(2j * math.pi * step / _ANGLES)
        roots = _roots(polynomial, target, roots, rounds=_ROUNDS if step else 40 * _ROUNDS)
        for branch, root in zip(branches, roots, strict=True):
            branch.append(root)
    x: list[float | None] = []
    y: list[float | None] = []
    for branch in branches:
        near = [root for root in branch if abs(root) < _FARTHEST]
        x += [*(round(root.real, 4) for root in near), None]
        y += [*(round(root.imag, 4) for root in near), None]
    return x, y


def _roots(polynomial: tuple[float, ...], target: complex, roots: list[complex], *, rounds: int) -> list[complex]:
    """Of R(z) = target, from near them: Durand & Kerner's iteration keeps their order."""
    roots = list(roots)
    for _ in range(rounds):
        for i, root in enumerate(roots):
            value = -target
            for coefficient, power in zip(polynomial, range(len(polynomial)), strict=True):
                value += coefficient * root**power
            others = math.prod((root - other for j, other in enumerate(roots) if j != i), start=complex(polynomial[-1]))
            roots[i] = root - value / others if others else root + 1e-6
    return roots
