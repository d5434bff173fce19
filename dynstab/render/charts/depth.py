"""Along depth: the gradient at every state, every step's gain between its bounds, the signal, the exponents."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dynstab.core.estimate import Estimate
from dynstab.core.report import Report
from dynstab.render.charts import paint
from dynstab.render.numbers import natural_log

TITLE = "Gradient, signal and exponents, step by step"
ABOUT = (
    "From top to bottom, as far as they were measured: the relative gradient gain from the last state back to each; "
    "the gain of each step, with the range from its smallest to its largest singular value as a band; the size of the "
    "signal; the exponents of each step, with the leading ones of the whole as lines. All but the last are logarithmic."
)
PANEL = 185
"""Pixels of a panel's height."""

Numbers = list[float | None]


class Panel:
    """Traces that share a vertical axis, and the numbers that it has to cover."""

    def __init__(self, title: str, *, logarithmic: bool = True) -> None:
        self.title = title
        self.logarithmic = logarithmic
        self.traces: list[go.Scatter] = []
        self.covered: Numbers = []

    def line(
        self, name: str, x: Sequence[float], y: Numbers, data: list[list[Any]] | None,
        *, color: str = paint.BLUE, width: float = 1.6, dash: str = "solid", mode: str = "lines+markers", **more: Any,
    ) -> None:  # fmt: skip
        """One series; nothing where it has no number."""
        if paint.drawable(y):
            more.setdefault("hovertemplate", paint.hover(name))
            self.traces.append(
                go.Scatter(
                    x=list(x), y=y, name=name, mode=mode, customdata=data,
                    line={"color": color, "width": width, "dash": dash}, marker={"size": 4 if len(x) > 60 else 6},
                    **more,
                )
            )  # fmt: skip

    def crosses(self, x: Sequence[float], estimates: Sequence[Estimate], data: list[list[Any]]) -> None:
        """A red cross at the upper edge for every number that is not finite."""
        lost = [i for i, e in enumerate(estimates) if e.value is not None and not math.isfinite(e.value)]
        top = max((value for value in self.covered if value is not None), default=1.0)
        if lost:
            self.traces.append(
                go.Scatter(
                    x=[x[i] for i in lost], y=[top] * len(lost), name="not finite", mode="markers",
                    customdata=[data[i] for i in lost], hovertemplate="%{customdata[1]}<br>not finite<extra></extra>",
                    marker={"symbol": "x", "size": 8, "color": "#c4342b"},
                )
            )  # fmt: skip


def figure(report: Report) -> go.Figure | None:
    """Panels over one axis of depth; None where nothing was measured along it."""
    panels = [panel for panel in (make(report) for make in _PANELS) if panel.traces]
    if not panels:
        return None
    gap = 0.3 / len(panels)
    drawing = make_subplots(rows=len(panels), cols=1, shared_xaxes=True, vertical_spacing=gap if panels[1:] else 0)
    paint.dress(drawing, height=90 + PANEL * len(panels))
    for row, panel in enumerate(panels, 1):
        _place(drawing, row, panel)
    paint.depth_axis(drawing, report, row=len(panels), col=1)
    return drawing


def _place(drawing: go.Figure, row: int, panel: Panel) -> None:
    """A panel with its own axis, its legend on top of it."""
    legend = "legend" if row == 1 else f"legend{row}"
    for trace in panel.traces:
        drawing.add_trace(trace.update(legend=legend, showlegend=trace.showlegend is not False), row=row, col=1)
    title = {"text": panel.title, "font": {"size": 11}}
    if panel.logarithmic:
        paint.decade_axis(drawing, panel.covered, row=row, col=1, title=title)
    else:
        drawing.update_yaxes(title=title, row=row, col=1)
    top = drawing.layout["yaxis" if row == 1 else f"yaxis{row}"].domain[1]
    drawing.update_layout({legend: {**paint.LEGEND, "y": top}})


def _gradient(report: Report) -> Panel:
    panel, flow = Panel("gain from output"), report.measurements.gradient_flow
    estimates = [point.relative_gain for point in flow]
    gains = paint.values(estimates, positive=True)
    x = [point.state - 0.5 for point in flow]
    data = paint.state_data((point.state, point.name) for point in flow)
    panel.covered += [1.0, *gains]
    panel.line("relative gradient gain", x, gains, data, error_y=paint.errors(estimates))
    panel.crosses(x, estimates, data)
    return panel


def _gains(report: Report) -> Panel:
    """The root mean square gain of a step lies between its extreme singular values."""
    panel, steps, data = Panel("gain of a step"), report.measurements.steps, paint.step_data(report)
    x = [step.index for step in steps]
    low = paint.values([step.smallest_singular_value for step in steps], positive=True)
    high = paint.values([step.largest_singular_value for step in steps], positive=True)
    gains = [None if chi is None else chi**0.5 for chi in paint.values([s.rms_gain for s in steps], positive=True)]
    growth = paint.values([step.norm_growth for step in steps], positive=True)
    both = [None not in pair for pair in zip(low, high, strict=True)]
    floor = [value if known else None for value, known in zip(low, both, strict=True)]
    ceiling = [value if known else None for value, known in zip(high, both, strict=True)]
    panel.line("σ min", x, floor, data, width=0.7, mode="lines", showlegend=False)
    panel.line("σ min to σ max", x, ceiling, data, width=0.7, mode="lines", fill="tonexty", fillcolor=paint.BAND)
    if not all(both):
        panel.line("σ max", x, high, data, width=0.7, color=paint.PURPLE)
    panel.line("√χ, RMS gain", x, gains, data)
    panel.line("norm growth", x, growth, data, color=paint.ORANGE)
    panel.covered += [*gains, *growth, *high, *_within(low, gains)]
    return panel


def _signal(report: Report) -> Panel:
    panel, states = Panel("RMS"), report.measurements.states
    estimates = [state.rms for state in states]
    sizes = paint.values(estimates, positive=True)
    x = [state.index - 0.5 for state in states]
    data = paint.state_data((state.index, state.name) for state in states)
    panel.covered += sizes
    panel.line("RMS of the state", x, sizes, data, color=paint.ORANGE, error_y=paint.errors(estimates))
    panel.crosses(x, estimates, data)
    return panel


def _exponents(report: Report) -> Panel:
    panel, steps, data = Panel("nat/step", logarithmic=False), report.measurements.steps, paint.step_data(report)
    x = [step.index for step in steps]
    for name, color, field, share in (
        ("½ ln χ", paint.BLUE, "rms_gain", 0.5),
        ("ln σ max", paint.PURPLE, "largest_singular_value", 1.0),
    ):
        logs = [natural_log(value) for value in paint.values([getattr(s, field) for s in steps], positive=True)]
        panel.line(name, x, [None if log is None else share * log for log in logs], data, color=color)
    lyapunov, ends = report.measurements.lyapunov, [-0.5, len(report.system.steps) - 0.5]
    for name, color, spectrum in (
        ("QR exponent", paint.GREEN, lyapunov.qr),
        ("finite-time exponent", paint.ORANGE, lyapunov.finite_time),
    ):
        for value in paint.values(spectrum[:1]):
            if value is not None:
                words = f"leading {name}: {value:.4g}<extra></extra>"
                panel.line(
                    name, ends, [value, value], None, color=color, mode="lines", dash="dash", hovertemplate=words
                )
    return panel


_PANELS: tuple[Callable[[Report], Panel], ...] = (_gradient, _gains, _signal, _exponents)


def _within(low: Numbers, gains: Numbers) -> Numbers:
    """Lower bounds that may stretch the axis: a singular value near zero would flatten all else."""
    known = [gain for gain in gains if gain is not None]
    floor = min(known, default=1.0) / 10
    return [None if value is None else max(value, floor) for value in low]
