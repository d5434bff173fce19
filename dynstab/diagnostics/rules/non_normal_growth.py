"""DS304: a step that grows before it decays."""

from __future__ import annotations

from collections.abc import Iterator

from dynstab.core.flag import Severity
from dynstab.core.measurements import StepMeasurement
from dynstab.diagnostics.case import Case
from dynstab.diagnostics.facts import Facts, at_least, at_most, finite
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.thresholds import KREISS
from dynstab.diagnostics.words import also, number


def find(facts: Facts) -> Iterator[Finding]:
    steps = {step.index: step for step in facts.measurements.steps if _non_normal(step)}
    if not steps:
        return
    worst = max(steps.values(), key=lambda step: finite(step.kreiss_constant) or 0.0)
    kreiss, radius = finite(worst.kreiss_constant) or 0.0, finite(worst.spectral_radius) or 0.0
    growth = finite(worst.transient_growth)
    seen = f", powers of it grow up to {number(growth)}" if growth is not None else ""
    yield Finding(
        measure="steps.kreiss_constant",
        value=kreiss,
        threshold=KREISS,
        where=facts.place(worst.index) if len(steps) == 1 else None,
        steps=tuple(sorted(steps)),
        message=f"{facts.place(worst.index)} grows before it decays: spectral radius {number(radius)} below 1, but "
        f"Kreiss constant {number(kreiss)}{seen}{also(len(steps))}{facts.caution}.",
        evidence={
            "worst_step": worst.index,
            "spectral_radius": radius,
            "transient_growth": growth,
            "henrici_departure": finite(worst.henrici_departure),
            "affected_steps": len(steps),
        },
        advice=(
            "Judge this step by singular values, not by eigenvalues: the spectral radius misleads here.",
            "Start recurrent or tied weights orthogonal (a normal matrix), or penalise their departure from normality.",
            "Clip the norm of the gradient: the growth is transient but real.",
        ),
    )


def _non_normal(step: StepMeasurement) -> bool:
    kreiss, radius = at_least(step.kreiss_constant), at_most(step.spectral_radius)
    return kreiss is not None and radius is not None and kreiss > KREISS and radius < 1


RULE = Rule(
    code="DS304",
    name="non-normal-growth",
    severity=Severity.WARNING,
    summary="A step with a spectral radius below 1 amplifies for a while before it decays.",
    documentation=document(
        what_it_flags="""
            The spectral radius of a step's Jacobian is below 1, and its Kreiss constant, a lower bound of the
            largest norm of any power, passes 3.
            """,
        why_it_matters="""
            Eigenvalues promise decay in the long run. At the depth of a network there is no long run: a
            non-normal step amplifies some direction first, and a product of different such steps need not
            decay at all.
            """,
        known_problems="""
            Powers of one Jacobian describe depth only where the steps are alike (recurrences, tied weights).
            Causal masks make Jacobians strongly non-normal by construction.
            """,
        example="""
            The map (0.9 x + 10 y, 0.9 y): both eigenvalues are 0.9, and yet its powers reach a norm of about
            39.
            """,
        what_to_do="""
            Read singular values instead, start with normal (orthogonal) weights, clip gradients.
            """,
        references=(
            "Trefethen & Embree (2005), Spectra and pseudospectra, Princeton",
            "Kerg et al. (2019), Non-normal recurrent neural network (nnRNN), NeurIPS",
            "Henrici (1962), Bounds for iterates, inverses and fields of values, Numer. Math. 4",
        ),
    ),
    find=find,
    silent_in=("training",),
    fires_on=(
        Case(steps={6: {"kreiss_constant": 12.0, "spectral_radius": 0.9}}),
        Case(kind="plain", every_step={"kreiss_constant": 4.0, "spectral_radius": 0.5, "transient_growth": None}),
    ),
    silent_on=(
        Case(),
        Case(steps={6: {"kreiss_constant": 12.0}}),
        Case(steps={6: {"kreiss_constant": 2.5, "spectral_radius": 0.9}}),
        Case(steps={6: {"kreiss_constant": None, "spectral_radius": 0.9}}),
    ),
)
