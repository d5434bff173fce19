"""DS301: a step whose gain is far from 1."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median

from dynstab.core.flag import Severity
from dynstab.core.measurements import StepMeasurement
from dynstab.diagnostics.case import Case
from dynstab.diagnostics.facts import Facts, log, standard_error
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.thresholds import OUTLIER, SIGNIFICANCE
from dynstab.diagnostics.words import count, number


@dataclass(frozen=True, kw_only=True)
class _Gain:
    """A step's logarithms of chi, raw and relative (None where there is none), and how far they are known."""

    index: int
    raw: float
    relative: float | None
    error: float

    def beside(self, usual: _Gain | None) -> _Gain:
        """What it has more than the usual step."""
        if usual is None:
            return self
        known = self.relative is not None and usual.relative is not None
        relative = (self.relative or 0.0) - (usual.relative or 0.0) if known else None
        return replace(self, raw=self.raw - usual.raw, relative=relative)

    @property
    def stands_out(self) -> bool:
        """|ln chi| passes the cut and lies four standard errors from 0."""
        return abs(self.raw) > max(OUTLIER, SIGNIFICANCE * self.error)

    @property
    def rescaled(self) -> bool:
        """A rescaling of the states explains it."""
        return self.relative is not None and (abs(self.relative) <= OUTLIER or self.relative * self.raw < 0)


def find(facts: Facts) -> Iterator[Finding]:
    gains = {step.index: gain for step in facts.measurements.steps if (gain := _gain(step))}
    outliers = [gain for gain in gains.values() if gain.stands_out]
    usual = None
    # What most steps do is no outlier: the rules on gradients and signals speak of it.
    if 2 * len(outliers) > facts.depth > 2:
        usual = _median(list(gains.values()))
        outliers = [beside for gain in gains.values() if (beside := gain.beside(usual)).stands_out]
    if not outliers:
        return
    explained = {o.index: o.rescaled or facts.kind(o.index) == "transition" for o in outliers}
    worst = max(outliers, key=lambda outlier: (not explained[outlier.index], abs(outlier.raw)))
    yield Finding(
        measure="steps.rms_gain",
        value=worst.raw,
        threshold=math.copysign(OUTLIER, worst.raw),
        severity=Severity.INFO if explained[worst.index] else Severity.WARNING,
        where=facts.place(worst.index) if len(outliers) == 1 else None,
        steps=tuple(sorted(outlier.index for outlier in outliers)),
        message=f"{_sentence(facts, gains[worst.index], usual, len(outliers))}.",
        evidence={
            "worst_step": worst.index,
            "rms_gain": math.exp(gains[worst.index].raw),
            "median_rms_gain": None if usual is None else math.exp(usual.raw),
            "log_relative_gain": gains[worst.index].relative,
            "rescaling_explains": explained[worst.index],
            "outliers": [outlier.index for outlier in outliers],
        },
        advice=(
            "Compare the step with its neighbours: initial scale, gate, normalisation, an activation without a skip.",
            "If it is the stem or the head, adjust its initial scale or learning rate alone.",
        ),
    )


def _sentence(facts: Facts, worst: _Gain, usual: _Gain | None, outliers: int) -> str:
    relative = "" if worst.relative is None else f" ({number(math.exp(worst.relative))} relative to the states)"
    beside = "" if usual is None else f", the median step by {number(math.exp(usual.raw))}"
    others = f"; {count(outliers, 'step')} of {facts.depth} in all" if outliers > 1 else ""
    chi = number(math.exp(worst.raw))
    return (
        f"{facts.place(worst.index)} multiplies the squared size of gradients by chi = {chi}{relative}{beside}{others}"
    )


def _gain(step: StepMeasurement) -> _Gain | None:
    """None where chi is unmeasured, zero or not finite."""
    raw, relative = log(step.rms_gain), log(step.relative_gain)
    if raw is None or not math.isfinite(raw):
        return None
    if relative is not None and not math.isfinite(relative):
        relative = None
    return _Gain(index=step.index, raw=raw, relative=relative, error=standard_error(step.rms_gain) / math.exp(raw))


def _median(gains: Sequence[_Gain]) -> _Gain:
    """The usual step, whose own error is small beside that of one."""
    relative = [gain.relative for gain in gains if gain.relative is not None]
    return _Gain(
        index=-1,
        raw=median(gain.raw for gain in gains),
        relative=median(relative) if relative else None,
        error=0.0,
    )


RULE = Rule(
    code="DS301",
    name="outlier-step",
    severity=Severity.WARNING,
    summary="A step changes the squared size of gradients by more than a factor 2.",
    documentation=document(
        what_it_flags="""
            |ln chi| of a step passes 0.7, a factor 2, and lies more than four standard errors from 0, where
            chi = ||J||_F^2/d is the mean squared gain. Where more than half of the steps do so, each is measured
            against the median step instead. It is information where a rescaling of the states explains it (the
            relative gain is unremarkable), or where the step is a transition, such as a stem or a head.
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
    # The steps of a recurrence are one map, those of a solver one field: none of them is set up otherwise.
    silent_in=("time", "flow", "training"),
    fires_on=(
        Case(steps={4: {"rms_gain": 4.0, "relative_gain": 3.9}}),
        Case(steps={4: {"rms_gain": 4.0, "relative_gain": 1.0}}),
        Case(steps={0: {"rms_gain": 0.1, "relative_gain": None}, 7: {"rms_gain": 3.0}}),
        Case(kind="transition", steps={11: {"rms_gain": 1e-3}}),
        Case(every_step={"rms_gain": 0.4, "relative_gain": 1.0}, steps={5: {"rms_gain": 4.0, "relative_gain": 4.0}}),
    ),
    silent_on=(
        Case(time="time", kind="plain", steps={3: {"rms_gain": 9.0, "relative_gain": 9.0}}),
        Case(every_step={"rms_gain": 0.1, "relative_gain": 0.1}),
        Case(),
        Case(steps={4: {"rms_gain": 1.9}}),
        Case(steps={4: {"rms_gain": 0.0}}),
        Case(every_step={"rms_gain": None}),
    ),
)
