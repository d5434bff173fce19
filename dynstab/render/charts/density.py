"""How the singular values and eigenvalues of one chosen step are distributed."""

from __future__ import annotations

import math

import plotly.graph_objects as go

from dynstab.core.measurements import StepMeasurement
from dynstab.core.report import Report
from dynstab.render.charts import paint

TITLE = "Spectrum of one step"
ABOUT = (
    "Distribution of ln σ and, where the eigenvalues are known, of ln |λ| of one step: left of 0 a direction "
    "shrinks, right of 0 it grows. Of many singular values only the leading ones are measured. Choose a step to see "
    "its own; without a choice it is the one that stretches most."
)
BINS = 60
_REACH = 8.0
"""Nat below the largest number that the axis covers: a value at rounding level would flatten all else."""


def figure(report: Report) -> go.Figure | None:
    """Histograms for the step with the largest singular value; None where no spectrum was measured.

    The axis and the bins are those of all steps, so that steps can be compared.
    """
    spectra = {step.index: logs_of_spectrum(step) for step in report.measurements.steps}
    candidates = [step for step in report.measurements.steps if spectra[step.index][0]]
    if not candidates:
        return None
    step = max(candidates, key=lambda step: max(spectra[step.index][0]))
    numbers = [log for both in spectra.values() for logs in both for log in logs]
    high = max(numbers) + 0.05
    low = max(min(numbers), high - _REACH) - 0.05
    bins = {"start": low, "end": high, "size": (high - low) / BINS}
    drawing = paint.figure(height=300, barmode="overlay", bargap=0.02)
    names = (("ln σ", paint.BLUE), ("ln |λ|", paint.ORANGE))
    for (name, color), logs in zip(names, spectra[step.index], strict=True):
        drawing.add_histogram(
            x=logs, name=name, xbins=bins, marker={"color": color}, opacity=0.65,
            hovertemplate=f"{name} in %{{x}}: %{{y}}<extra></extra>",
        )  # fmt: skip
    drawing.update_xaxes(title_text="natural logarithm", range=[low, high])
    drawing.update_yaxes(title_text="count", rangemode="tozero")
    title = f"step {step.index} · {paint.label(step.name)}"
    drawing.update_layout(title={"text": title, "font": {"size": 12}, "x": 1, "xanchor": "right", "y": 0.98})
    paint.link(drawing, kind="spectrum")
    return drawing


def logs_of_spectrum(step: StepMeasurement) -> tuple[list[float], list[float]]:
    """ln of the singular values that were measured, and of the moduli of the eigenvalues; zeros are left out."""
    sigmas = [value for value in paint.values(step.singular_values, positive=True) if value is not None]
    moduli = [math.hypot(*pair) for pair in step.eigenvalues]
    return (
        [round(math.log(value), 5) for value in sigmas],
        [round(math.log(value), 5) for value in moduli if value > 0 and math.isfinite(value)],
    )
