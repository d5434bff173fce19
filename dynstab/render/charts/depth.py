"""Along depth: the gradient at every state, every step's gain between its bounds, the signal, the exponents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dynstab.core.report import Report
from dynstab.render.charts import paint
from dynstab.render.numbers import natural_log

TITLE = "Gradient, signal and exponents along depth"
ABOUT = (
    "From top to bottom: the relative gradient gain from the output back to each state; the gain of each step, "
    "with the range between its smallest and largest singular value as a band; the size of the signal; the "
    "exponents of each step, with the leading ones of the whole as lines. The first three axes are logarithmic."
)
_ROWS = ("gain from the output", "gain of a step", "RMS", "nat/step")


def figure(report: Report) -> go.Figure | None:
    """Four panels over one axis of depth; None where nothing was measured along it."""
    measured = report.measurements
    if not (measured.steps or measured.states or measured.gradient_flow):
        return None
    drawing = make_subplots(rows=4, cols=1, shared_xaxes=True, vertical_spacing=0.07, row_heights=[3, 3, 2, 2])
    paint.dress(drawing, height=800, **_legends(drawing))
    _gradient(drawing, report)
    _gains(drawing, report)
    _signal(drawing, report)
    _exponents(drawing, report)
    for row, words in enumerate(_ROWS, 1):
        drawing.update_yaxes(title={"text": words, "font": {"size": 11}}, row=row, col=1)
    paint.depth_axis(drawing, report, row=4, col=1)
    return drawing if drawing.data else None


def _legends(drawing: go.Figure) -> dict[str, Any]:
    """Each panel's legend stands on top of it."""
    tops = [drawing.layout[f"yaxis{row if row > 1 else ''}"].domain[1] for row in range(1, 5)]
    return {f"legend{row}": {**paint.LEGEND, "y": top} for row, top in enumerate(tops, 1) if row > 1}


def _gradient(drawing: go.Figure, report: Report) -> None:
    flow = report.measurements.gradient_flow
    estimates = [point.relative_gain for point in flow]
    gains = paint.values(estimates, positive=True)
    data = paint.state_data((point.state, point.name) for point in flow)
    _line(
        drawing,
        1,
        "relative gradient gain",
        [point.state - 0.5 for point in flow],
        gains,
        data,
        error_y=paint.errors(estimates),
    )
    paint.decade_axis(drawing, [1.0, *gains], row=1, col=1)


def _gains(drawing: go.Figure, report: Report) -> None:
    """The root mean square gain of a step lies between its extreme singular values."""
    steps, data = report.measurements.steps, paint.step_data(report)
    x = [step.index for step in steps]
    low = paint.values([step.smallest_singular_value for step in steps], positive=True)
    high = paint.values([step.largest_singular_value for step in steps], positive=True)
    if paint.drawable(low):
        _line(drawing, 2, "σ min", x, low, data, width=0.7, color=paint.BLUE, mode="lines")
    _line(
        drawing, 2, "σ max", x, high, data, width=0.7, color=paint.BLUE, mode="lines",
        fill="tonexty" if paint.drawable(low) else None, fillcolor=paint.BAND,
    )  # fmt: skip
    gains = [None if chi is None else chi**0.5 for chi in paint.values([s.rms_gain for s in steps], positive=True)]
    growth = paint.values([step.norm_growth for step in steps], positive=True)
    _line(drawing, 2, "√χ, RMS gain", x, gains, data)
    _line(drawing, 2, "norm growth", x, growth, data, color=paint.ORANGE)
    paint.decade_axis(drawing, [*gains, *growth, *high, *_within(low, gains)], row=2, col=1)


def _signal(drawing: go.Figure, report: Report) -> None:
    states = report.measurements.states
    estimates = [state.rms for state in states]
    sizes = paint.values(estimates, positive=True)
    data = paint.state_data((state.index, state.name) for state in states)
    x = [state.index - 0.5 for state in states]
    _line(drawing, 3, "RMS of the state", x, sizes, data, color=paint.ORANGE, error_y=paint.errors(estimates))
    paint.decade_axis(drawing, sizes, row=3, col=1)


def _exponents(drawing: go.Figure, report: Report) -> None:
    steps, data = report.measurements.steps, paint.step_data(report)
    x = [step.index for step in steps]
    for name, color, field, share in (
        ("½ ln χ", paint.BLUE, "rms_gain", 0.5),
        ("ln σ max", paint.PURPLE, "largest_singular_value", 1.0),
    ):
        logs = [natural_log(value) for value in paint.values([getattr(s, field) for s in steps], positive=True)]
        local = [None if log is None else share * log for log in logs]
        _line(drawing, 4, name, x, local, data, color=color)
    lyapunov = report.measurements.lyapunov
    for name, color, spectrum in (
        ("QR exponent", paint.GREEN, lyapunov.qr),
        ("finite-time exponent", paint.ORANGE, lyapunov.finite_time),
    ):
        for value in paint.values(spectrum[:1]):
            if value is not None and x:
                _line(
                    drawing, 4, name, [-0.5, len(x) - 0.5], [value, value], None,
                    color=color, mode="lines", dash="dash", hovertemplate=f"{name}: {value:.4g}<extra></extra>",
                )  # fmt: skip


def _line(
    drawing: go.Figure, row: int, name: str, x: Sequence[float], y: list[float | None], data: list[list[Any]] | None,
    *, color: str = paint.BLUE, width: float = 1.6, dash: str = "solid", mode: str = "lines+markers", **more: Any,
) -> None:  # fmt: skip
    """One series of panel `row`; nothing where it has no number."""
    if paint.drawable(y):
        more.setdefault("hovertemplate", paint.hover(name))
        trace = go.Scatter(
            x=x, y=y, name=name, mode=mode, customdata=data,
            line={"color": color, "width": width, "dash": dash}, marker={"size": 4 if len(x) > 60 else 6},
            legend="legend" if row == 1 else f"legend{row}", **more,
        )  # fmt: skip
        drawing.add_trace(trace, row=row, col=1)


def _within(low: list[float | None], gains: list[float | None]) -> list[float | None]:
    """Lower bounds that may stretch the axis: a singular value near zero would flatten all else."""
    known = [gain for gain in gains if gain is not None]
    floor = min(known, default=1.0) / 10
    return [None if value is None else max(value, floor) for value in low]
