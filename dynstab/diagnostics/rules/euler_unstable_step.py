"""DS302: a decaying flow that one explicit Euler step makes grow."""

from __future__ import annotations

from collections.abc import Iterator

from dynstab.core.estimate import Label
from dynstab.core.flag import Severity
from dynstab.core.measurements import StepMeasurement
from dynstab.diagnostics.case import Case
from dynstab.diagnostics.euler import stable_step
from dynstab.diagnostics.facts import Facts, at_least, error, finite
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.thresholds import EULER_RADIUS, ROUNDING
from dynstab.diagnostics.words import also, number


def find(facts: Facts) -> Iterator[Finding]:
    radii = {step.index: finite(step.spectral_radius) or 0.0 for step in facts.residual_steps() if _unstable(step)}
    if not radii:
        return
    worst = max(radii, key=lambda index: radii[index])
    step = next(step for step in facts.measurements.steps if step.index == worst)
    abscissa = step.spectral_abscissa.value
    yield Finding(
        measure="steps.spectral_radius",
        value=radii[worst],
        threshold=EULER_RADIUS,
        where=facts.place(worst) if len(radii) == 1 else None,
        steps=tuple(sorted(radii)),
        message=f"The flow of {facts.place(worst)} does not grow, but its step does: max |1 + lambda| passes 1 "
        f"by {number(radii[worst] - 1)} although max Re lambda = {number(abscissa or 0.0)}"
        f"{also(len(radii))}{facts.caution}.",
        evidence={"worst_step": worst, "spectral_abscissa": abscissa, "affected_steps": len(radii)},
        advice=_advice(stable_step(step.eigenvalues)),
    )


def _advice(allowed: float | None) -> tuple[str, ...]:
    """A smaller step where one helps: purely imaginary eigenvalues grow at any."""
    damp = "Add a decay to the field (for an antisymmetric one W - W^T - gamma I): it moves eigenvalues into the disc."
    scheme = "Use an implicit, symplectic or higher-order update if the oscillation is wanted."
    if allowed is not None and allowed > ROUNDING:
        return (f"Multiply the branch by a step size of {number(min(allowed, 1.0))} or less.", damp, scheme)
    return (damp, scheme)


def _unstable(step: StepMeasurement) -> bool:
    """Every eigenvalue of the field decays or oscillates, and yet one leaves the disc by more than rounding.

    A lower bound of the abscissa proves no decay; a lower bound of the radius does prove growth.
    """
    abscissa, radius = step.spectral_abscissa, at_least(step.spectral_radius)
    value = finite(abscissa)
    if value is None or radius is None or abscissa.label is Label.LOWER:
        return False
    return value <= ROUNDING and error(abscissa) <= max(abs(value), ROUNDING) and radius > EULER_RADIUS + ROUNDING


RULE = Rule(
    code="DS302",
    name="euler-unstable-step",
    severity=Severity.WARNING,
    summary="A residual step grows although the flow that it samples decays or oscillates.",
    documentation=document(
        what_it_flags="""
            In a residual step h + f(h) every eigenvalue lambda of f's Jacobian has Re lambda <= 0, so that
            the flow h' = f(h) does not grow; but |1 + lambda| > 1 for some, so that the step, explicit Euler
            with h = 1, does.
            """,
        why_it_matters="""
            Designs that promise stability by their eigenvalues (antisymmetric weights, damped oscillators)
            keep the promise for the flow only. An antisymmetric field under explicit Euler always grows, by
            1/2 ln(1 + w^2) nat per step at frequency w.
            """,
        known_problems="""
            Eigenvalues of one step do not multiply along depth unless the steps share them. In causal
            networks they come from the diagonal token blocks alone and say little of gains. Eigenvalues
            within 0.001 of the limit are put down to rounding.
            """,
        example="""
            h + W h with W antisymmetric and of norm 0.5: radius sqrt(1.25) = 1.118, which is e^5.6 after 50
            steps.
            """,
        what_to_do="""
            Take a smaller step, add a decay, or change the scheme.
            """,
        references=(
            "Haber & Ruthotto (2017), Stable architectures for deep neural networks, Inverse Problems 34",
            "Chang, Chen, Haber & Chi (2019), AntisymmetricRNN, ICLR",
            "Hairer & Wanner (1996), Solving ordinary differential equations II, Springer",
        ),
    ),
    find=find,
    silent_in=("training",),
    fires_on=(
        Case(every_step={"spectral_abscissa": 0.0, "spectral_radius": 1.118, "eigenvalues": ((1.0, 0.5), (1.0, -0.5))}),
        Case(steps={5: {"spectral_abscissa": -0.1, "spectral_radius": 1.5}}),
    ),
    silent_on=(
        Case(),
        Case(steps={5: {"spectral_abscissa": -0.1, "spectral_radius": 0.9}}),
        Case(kind="plain", steps={5: {"spectral_abscissa": -0.1, "spectral_radius": 1.5}}),
        Case(steps={5: {"spectral_abscissa": None, "spectral_radius": 1.5}}),
    ),
)
