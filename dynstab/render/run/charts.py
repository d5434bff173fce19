"""The charts of a run, all over the same axis: the training step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dynstab.core.flag import Severity
from dynstab.core.run import Probe, Run
from dynstab.core.run_series import Curve, curves
from dynstab.render.charts import paint
from dynstab.render.run import heatmaps

TONES = {Severity.ERROR: "#c6403a", Severity.WARNING: "#c98a00", Severity.INFO: "#3d84c6"}
MOST_LINES = 60
"""Findings beyond this many would only be a coloured ground."""

MOST_CROSSES = 40
"""Of more numbers that are not finite some stand for all."""


@dataclass(frozen=True)
class Chart:
    """A figure with its title and what it shows."""

    name: str
    title: str
    about: str
    draw: Callable[[Run], go.Figure | None]


def figures(run: Run) -> dict[str, tuple[Chart, Any]]:
    """Every chart that the run has numbers for and its plotly `Figure`, by name, findings marked in each."""
    drawn = {}
    for chart in CHARTS:
        figure = chart.draw(run)
        if figure is not None:
            _mark(figure, run)
            drawn[chart.name] = (chart, figure)
    return drawn


def _course(run: Run) -> go.Figure | None:
    names = ("loss", "gradient_norm", "largest_relative_update", "largest_activation_rms", "learning_rate")
    found = {curve.name: curve for curve in curves(run)}
    shown = [found[name] for name in names if name in found]
    if not shown:
        return None
    drawing = make_subplots(rows=len(shown), cols=1, shared_xaxes=True, vertical_spacing=0.035)
    paint.dress(drawing, height=90 + 135 * len(shown), showlegend=False)
    for row, curve in enumerate(shown, 1):
        _panel(drawing, curve, row)
    _step_axis(drawing, run, row=len(shown), col=1)
    return drawing


def _panel(drawing: go.Figure, curve: Curve, row: int) -> None:
    steps, values = zip(*curve.points, strict=True)
    drawn = [value if value > 0 and math.isfinite(value) else None for value in values]
    drawing.add_scatter(
        x=steps, y=drawn, name=curve.words, mode="lines", line={"color": paint.BLUE, "width": 1.4}, row=row, col=1,
        hovertemplate=f"step %{{x}}<br>{curve.words}: %{{y:.4g}}<extra></extra>",
    )  # fmt: skip
    paint.decade_axis(drawing, drawn, row=row, col=1, title={"text": _two_lines(curve.words), "font": {"size": 11}})
    lost = [step for step, value in curve.points if not math.isfinite(value)]
    lost = lost[:: -(-len(lost) // MOST_CROSSES) or 1]
    top = max((value for value in drawn if value is not None), default=1.0)
    if lost:
        drawing.add_scatter(
            x=lost, y=[top] * len(lost), mode="markers", row=row, col=1, name="not finite",
            marker={"symbol": "x", "color": TONES[Severity.ERROR], "size": 6},
            hovertemplate=f"step %{{x}}<br>{curve.words}: not finite<extra></extra>",
        )  # fmt: skip


def _two_lines(words: str) -> str:
    head, blank, tail = words.partition(" ")
    return f"{head}<br>{tail}" if blank else words


def _exponents(run: Run) -> go.Figure | None:
    count = max((len(probe.exponents) for probe in run.probes), default=0)
    if not count:
        return None
    drawing = paint.figure(height=300, showlegend=count > 1)
    colors = (paint.BLUE, paint.ORANGE, paint.GREEN, paint.PURPLE)
    for index in range(min(count, len(colors))):
        x, y = _of_probes(run, lambda probe, i=index: probe.exponents[i] if i < len(probe.exponents) else None)
        drawing.add_scatter(
            x=x, y=y, mode="lines+markers", marker={"size": 4}, line={"color": colors[index], "width": 1.6},
            name=f"exponent {index + 1}", hovertemplate="step %{x}: %{y:.4g} nat/step<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    drawing.update_yaxes(title_text="nat per step of the network", zeroline=True)
    _step_axis(drawing, run)
    return drawing


def _sharpness(run: Run) -> go.Figure | None:
    probes = [probe for probe in run.probes if probe.sharpness is not None and probe.sharpness.measured]
    if not probes:
        return None
    estimates = [probe.sharpness for probe in probes if probe.sharpness is not None]
    values, steps = paint.values(estimates, positive=True), [probe.step for probe in probes]
    drawing = paint.figure(height=320)
    drawing.add_scatter(
        x=steps, y=values, error_y=paint.errors(estimates), mode="lines+markers", marker={"size": 5},
        line={"color": paint.BLUE, "width": 1.6},
        name="preconditioned sharpness" if probes[-1].preconditioned else "sharpness",
        hovertemplate="step %{x}: %{y:.4g}<extra>%{fullData.name}</extra>",
    )  # fmt: skip
    x, thresholds = _of_probes(run, lambda probe: probe.threshold)
    if paint.drawable(thresholds):
        drawing.add_scatter(
            x=x, y=thresholds, mode="lines", line={"color": paint.ORANGE, "width": 1.6, "dash": "dash"},
            name="the optimiser's threshold", hovertemplate="step %{x}: %{y:.4g}<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    paint.decade_axis(drawing, [*values, *thresholds], title_text="λ max")
    _step_axis(drawing, run)
    return drawing


def _of_probes(run: Run, number: Callable[[Probe], float | None]) -> tuple[list[int], list[float | None]]:
    values = [number(probe) for probe in run.probes]
    finite = [value if value is not None and math.isfinite(value) else None for value in values]
    return [probe.step for probe in run.probes], finite


def _map(field: str, names: Callable[[Run], Sequence[str]], unit: str) -> Callable[[Run], go.Figure | None]:
    """A map of what the probes measured along the network, in ln around zero."""

    def draw(run: Run) -> go.Figure | None:
        rows = [(probe.step, getattr(probe, field)) for probe in run.probes]
        return _finished(heatmaps.figure(rows, names(run), unit=unit), run)

    return draw


def _signal_map(of: str, names: Callable[[Run], Sequence[str]]) -> Callable[[Run], go.Figure | None]:
    """A map of a positive signal, log10 over each row's own median."""

    def draw(run: Run) -> go.Figure | None:
        rows = heatmaps.over_medians([(signal.step, getattr(signal, of)) for signal in run.signals])
        return _finished(heatmaps.figure(rows, names(run), unit="log10 over its median"), run)

    return draw


def _finished(drawing: go.Figure | None, run: Run) -> go.Figure | None:
    if drawing is not None:
        _step_axis(drawing, run)
    return drawing


def _step_axis(drawing: go.Figure, run: Run, **where: Any) -> None:
    steps = [record.step for records in (run.signals, run.probes) for record in (records[:1] + records[-1:])]
    slack = max(1, max(steps) - min(steps)) / 60
    drawing.update_xaxes(range=[min(steps) - slack, max(steps) + slack])
    drawing.update_xaxes(title_text="training step", **where)


def _mark(drawing: go.Figure, run: Run) -> None:
    """A thin line where something was found, the severest where there are too many."""
    by_rank = sorted(run.incidents, key=lambda each: -each.flag.severity.rank)[:MOST_LINES]
    for each in by_rank:
        drawing.add_shape(
            type="line", x0=each.step, x1=each.step, y0=0, y1=1, yref="paper", opacity=0.8,
            line={"color": TONES[each.flag.severity], "width": 1.2, "dash": "dot"},
        )  # fmt: skip


CHARTS = (
    Chart(
        "course", "The course of training",
        "Dotted lines are findings, crosses are numbers that are no longer finite.", _course,
    ),
    Chart(
        "exponents", "Leading exponents",
        "Finite-time Lyapunov exponents of the network on the probe batch: above zero, some perturbation of the "
        "signal grows from step to step. Each is a lower bound, from directions followed from probe to probe.",
        _exponents,
    ),
    Chart(
        "gains", "Gain of every step of the network",
        "ln of the relative RMS gain: orange steps enlarge perturbations and gradients, blue ones shrink them. From "
        "bottom to top the network from its input to its output.",
        _map("step_gains", lambda run: run.info.steps, "ln gain"),
    ),
    Chart(
        "flow", "Gradient flow",
        "ln of the relative gain of the gradient on its way from the output back to every state: orange is growth, "
        "blue is loss.", _map("gradient_flow", lambda run: run.info.states, "ln gain"),
    ),
    Chart(
        "sharpness", "Sharpness and its threshold",
        "Leading eigenvalue of the loss's Hessian (of the preconditioned one for Adam). Above the dashed line the "
        "optimiser's steps on the local quadratic diverge.", _sharpness,
    ),
    Chart(
        "gradients", "Gradient norm of every group of parameters",
        "Against the group's own median over the run, as a power of ten: where an upheaval begins and how it spreads.",
        _signal_map("gradient_norm", lambda run: run.info.groups),
    ),
    Chart(
        "updates", "Update norm of every group of parameters",
        "The change of the weights at a step, against the group's own median, as a power of ten. With Adam, a jump in "
        "the lower layers comes before a spike of the loss.", _signal_map("update_norm", lambda run: run.info.groups),
    ),
    Chart(
        "activations", "Size of the signal at every place",
        "RMS of the output against its own median, as a power of ten.",
        _signal_map("activation_rms", lambda run: run.info.places),
    ),
)  # fmt: skip
