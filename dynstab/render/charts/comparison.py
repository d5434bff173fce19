"""Several reports over one axis of depth, and their exponents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dynstab.core.comparison import Comparison
from dynstab.core.estimate import Estimate
from dynstab.core.report import Report
from dynstab.render.charts import paint

DEPTH = (
    "Along depth",
    "From top to bottom: the relative gradient gain from the output back to each state, the gain √χ of each step, and "
    "the size of the signal. Steps of the same name stand above each other if most steps have a counterpart.",
)
EXPONENTS = ("Finite-time exponents", "ln σ of the whole over its length, from the largest down, with error bars.")
COLORS = (paint.BLUE, paint.ORANGE, paint.GREEN, paint.PURPLE, "#c9a000", "#56a7d9", "#7a5230", paint.GREY)
DASHES = ("solid", "dash", "dot", "dashdot")

Series = tuple[list[float], list[Estimate], list[str]]


@dataclass(frozen=True, kw_only=True)
class _Panel:
    title: str
    power: float
    series: Callable[[Comparison, int], Series]


def figures(comparison: Comparison) -> dict[str, go.Figure]:
    """The charts that any report has numbers for."""
    drawn = {"depth": _depth(comparison), "exponents": _exponents(comparison)}
    return {name: figure for name, figure in drawn.items() if figure.data}


def _depth(comparison: Comparison) -> go.Figure:
    drawing = make_subplots(rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.05)
    paint.dress(drawing, height=680)
    for row, panel in enumerate(_PANELS, 1):
        scale: list[float | None] = []
        for number, name in enumerate(comparison.names):
            x, estimates, names = panel.series(comparison, number)
            y = [None if v is None else v**panel.power for v in paint.values(estimates, positive=True)]
            if paint.drawable(y):
                trace = _trace(number, name, x, y, names, first=row == 1)
                drawing.add_trace(trace, row=row, col=1)
                scale += y
        paint.decade_axis(drawing, scale, row=row, col=1, title={"text": panel.title, "font": {"size": 11}})
    last = max((max(_places(comparison, i).values(), default=0) for i in range(len(comparison.names))), default=0)
    drawing.update_xaxes(range=[-0.9, last + 0.9])
    drawing.update_xaxes(title_text="step", row=3, col=1)
    return drawing


def _trace(
    number: int, name: str, x: Sequence[float], y: list[float | None], names: list[str], *, first: bool
) -> go.Scatter:
    return go.Scatter(
        x=x, y=y, name=paint.label(name), legendgroup=str(number), showlegend=first, mode="lines+markers",
        line=_line(number), marker={"size": 4}, text=[paint.label(each) for each in names],
        hovertemplate="%{text}: %{y:.4g}<extra>%{fullData.name}</extra>", meta={"report": number},
    )  # fmt: skip


def _exponents(comparison: Comparison) -> go.Figure:
    drawing = paint.figure(height=320)
    for number, (name, report) in enumerate(zip(comparison.names, comparison.reports, strict=True)):
        spectrum = report.measurements.lyapunov.finite_time or report.measurements.lyapunov.qr
        if paint.drawable(paint.values(spectrum)):
            drawing.add_scatter(
                x=list(range(1, len(spectrum) + 1)), y=paint.values(spectrum), error_y=paint.errors(spectrum),
                name=paint.label(name), mode="lines+markers", line=_line(number), meta={"report": number},
            )  # fmt: skip
    drawing.update_xaxes(title_text="index")
    drawing.update_yaxes(title_text="nat/step", zeroline=True)
    return drawing


def _line(number: int) -> dict[str, object]:
    dash = DASHES[number // len(COLORS) % len(DASHES)]
    return {"color": COLORS[number % len(COLORS)], "width": 1.8, "dash": dash}


def _places(comparison: Comparison, number: int) -> dict[int, int]:
    """Where each step of a report stands: in its row among the matched steps, or, where few match, at its index."""
    shared = sum(None not in step.indices for step in comparison.steps)
    together = 2 * shared >= len(comparison.steps)
    rows = ((step.indices[number], row) for row, step in enumerate(comparison.steps))
    return {index: row if together else index for index, row in rows if index is not None}


def _state_series(field: str, points: Callable[[Report], Iterator[tuple[int, str, Estimate]]]) -> Callable:
    """States stand half a step before the step that leaves them, the last one behind the last step."""

    def series(comparison: Comparison, number: int) -> Series:
        places = _places(comparison, number)
        end = max(places.values(), default=0) + 0.5
        found = list(points(comparison.reports[number]))
        x = [places[index] - 0.5 if index in places else end for index, _, _ in found]
        return x, [estimate for _, _, estimate in found], [f"{field} at {name}" for _, name, _ in found]

    return series


def _gradient(report: Report) -> Iterator[tuple[int, str, Estimate]]:
    return ((point.state, point.name, point.relative_gain) for point in report.measurements.gradient_flow)


def _signal(report: Report) -> Iterator[tuple[int, str, Estimate]]:
    return ((state.index, state.name, state.rms) for state in report.measurements.states)


def _gains(comparison: Comparison, number: int) -> Series:
    places = _places(comparison, number)
    steps = [step for step in comparison.reports[number].measurements.steps if step.index in places]
    x = [float(places[step.index]) for step in steps]
    return x, [step.rms_gain for step in steps], [f"√χ of {step.name}" for step in steps]


_PANELS = (
    _Panel(title="gain from the output", power=1.0, series=_state_series("relative gradient gain", _gradient)),
    _Panel(title="gain of a step", power=0.5, series=_gains),
    _Panel(title="RMS", power=1.0, series=_state_series("RMS", _signal)),
)
