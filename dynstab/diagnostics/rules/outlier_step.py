"""DS301: a step whose gain is far from 1."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from dynstab.core.flag import Severity
from dynstab.core.measurements import StepMeasurement
from dynstab.diagnostics.case import Case
from dynstab.diagnostics.facts import Facts, log, standard_error
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.thresholds import OUTLIER, SIGNIFICANCE
from dynstab.diagnostics.words import count, number


@dataclass(frozen=True, kw_only=True)
class _Outlier:
    """A step with its logarithms of chi, raw and relative; `rescaling` could explain it."""

    index: int
    raw: float
    relative: float | None
    rescaling: bool


def find(facts: Facts) -> Iterator[Finding]:
    # The steps of a recurrence are one map, those of a solver one field: none of them is set up otherwise.
    if facts.system.kind in ("time", "flow"):
        return
    outliers = [found for step in facts.measurements.steps if (found := _outlier(facts, step))]
    if not outliers:
        return
    worst = max(outliers, key=lambda outlier: (not outlier.rescaling, abs(outlier.raw)))
    chi = math.exp(worst.raw)
    # What most steps do is no outlier: the rules on gradients and signals speak of it.
    common = 2 * len(outliers) > facts.depth > 2
    others = f"; {count(len(outliers), 'step')} of {facts.depth} in all" if len(outliers) > 1 else ""
    relative = "" if worst.relative is None else f" ({number(math.exp(worst.relative))} relative to the states)"
    yield Finding(
        measure="steps.rms_gain",
        value=worst.raw,
        threshold=math.copysign(OUTLIER, worst.raw),
        severity=Severity.INFO if worst.rescaling or common else Severity.WARNING,
        where=facts.place(worst.index) if len(outliers) == 1 else None,
        steps=tuple(sorted(outlier.index for outlier in outliers)),
        message=f"{facts.place(worst.index)} multiplies the squared size of gradients by chi = "
        f"{number(chi)}{relative}{others}.",
        evidence={
            "worst_step": worst.index,
            "rms_gain": chi,
            "log_relative_gain": worst.relative,
            "rescaling_explains": worst.rescaling,
            "outliers": [outlier.index for outlier in outliers],
        },
        advice=(
            "Compare the step with its neighbours: initial scale, gate, normalisation, an activation without a skip.",
            "If it is the stem or the head, adjust its initial scale or learning rate alone.",
        ),
    )


def _outlier(facts: Facts, step: StepMeasurement) -> _Outlier | None:
    """The step, if |ln chi| passes the cut and lies four standard errors from 0."""
    raw, relative = log(step.rms_gain), log(step.relative_gain)
    if raw is None or not math.isfinite(raw) or abs(raw) <= OUTLIER:
        return None
    if abs(raw) <= SIGNIFICANCE * standard_error(step.rms_gain) / math.exp(raw):
        return None
    if relative is not None and not math.isfinite(relative):
        relative = None
    rescaling = relative is not None and (abs(relative) <= OUTLIER or relative * raw < 0)
    return _Outlier(
        index=step.index,
        raw=raw,
        relative=relative,
        rescaling=rescaling or facts.kind(step.index) == "transition",
    )


RULE = Rule(
    code="DS301",
    name="outlier-step",
    severity=Severity.WARNING,
    summary="A step changes the squared size of gradients by more than a factor 2.",
    documentation=document(
        what_it_flags="""
            |ln chi| of a step passes 0.7, a factor 2, and lies more than four standard errors from 0, where
            chi = ||J||_F^2/d is the mean squared gain. It is information where a rescaling of the states
            explains it (the relative gain is unremarkable), where the step is a transition, such as a stem or
            a head, or where most steps do the same.
            """,
        why_it_matters="""
            One such step is no explosion, but it sets the scale for all that lie before it, and a gain that
            differs by a factor 2 from its neighbours' usually has a cause: another initialisation, a missing
            normalisation, a saturated gate.
            """,
        known_problems="""
            Heads and embeddings change units: their chi is a convention. The cut is on raw chi; the message
            shows both.
            """,
        example="""
            A residual block whose last layer was left at the framework's default scale while the others start
            at zero.
            """,
        what_to_do="""
            Compare the step with its neighbours and give it their scale.
            """,
        references=(
            "Schoenholz, Gilmer, Ganguli & Sohl-Dickstein (2017), Deep information propagation, ICLR",
            "Saxe, McClelland & Ganguli (2014), Exact solutions to the nonlinear dynamics of learning, ICLR",
        ),
    ),
    find=find,
    fires_on=(
        Case(steps={4: {"rms_gain": 4.0, "relative_gain": 3.9}}),
        Case(steps={4: {"rms_gain": 4.0, "relative_gain": 1.0}}),
        Case(steps={0: {"rms_gain": 0.1, "relative_gain": None}, 7: {"rms_gain": 3.0}}),
        Case(kind="transition", steps={11: {"rms_gain": 1e-3}}),
    ),
    silent_on=(
        Case(time="time", kind="plain", steps={3: {"rms_gain": 9.0, "relative_gain": 9.0}}),
        Case(),
        Case(steps={4: {"rms_gain": 1.9}}),
        Case(steps={4: {"rms_gain": 0.0}}),
        Case(every_step={"rms_gain": None}),
    ),
)
