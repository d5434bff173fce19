"""DS601: neighbouring states of a recurrence part exponentially."""

from __future__ import annotations

from collections.abc import Iterator

from dynstab.core.estimate import Label
from dynstab.core.flag import Severity
from dynstab.diagnostics.case import Case
from dynstab.diagnostics.facts import Facts, error, finite
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.thresholds import LONG_ENOUGH, SIGNIFICANCE
from dynstab.diagnostics.words import number

_ROUNDING = 1e-6  # of an exponent: an error below it is that of arithmetic and no standard error


def find(facts: Facts) -> Iterator[Finding]:
    time, exponents = facts.measurements.time, facts.measurements.lyapunov.qr
    if time is None or not exponents or time.steps < LONG_ENOUGH:
        return
    leading, value = exponents[0], finite(exponents[0])
    if value is None or leading.error is None or leading.label is Label.UPPER or facts.rest is not None:
        return
    # Neighbours that part no faster than the states themselves grow keep their distance in proportion.
    doubt, apart = error(leading), value - max(0.0, finite(time.size_growth) or 0.0)
    if apart <= SIGNIFICANCE * doubt or apart <= 0:
        return
    sigmas = f", {number(value / doubt)} standard errors above zero" if doubt > _ROUNDING * value else ""
    yield Finding(
        measure="lyapunov.qr",
        value=value,
        threshold=SIGNIFICANCE * doubt,
        where="network",
        message=f"The recurrence is chaotic: the leading exponent is {number(value)} nat per step{sigmas}; "
        f"neighbouring states part by a factor e every {number(1 / value)} steps.",
        evidence={
            "error": doubt,
            "steps": time.steps,
            "expansion_sum": facts.measurements.lyapunov.expansion_sum.value,
            "kaplan_yorke_dimension": facts.measurements.lyapunov.kaplan_yorke_dimension.value,
        },
        advice=(
            f"Truncate backpropagation through time to a few times {number(1 / value)} steps: gradients from further "
            "back are dominated by one direction.",
            "Scale the recurrent weights down or start them orthogonal, until the leading exponent is near zero.",
            "Use a gated cell, or a stronger input: a drive can suppress chaos.",
        ),
    )


RULE = Rule(
    code="DS601",
    name="chaotic-recurrence",
    severity=Severity.WARNING,
    summary="The leading exponent of a recurrence is positive by more than four standard errors.",
    documentation=document(
        what_it_flags="""
            lambda_1, the leading Lyapunov exponent along the sequence that was given, is positive by more than four
            standard errors (batch means), over at least 50 steps after a discarded transient.
            """,
        why_it_matters="""
            Two states that differ by rounding differ by everything after ln(1/eps)/lambda_1 steps, gradients grow at
            least at that rate on their way back, and the loss becomes a rough function of the weights.
            """,
        known_problems="""
            Some tasks want it: reservoirs work best near the edge of chaos, and networks trained on chaotic signals
            reproduce their exponents. The exponent belongs to the inputs that were given: another drive
            can make it negative.
            """,
        example="""
            h <- W tanh(h) with independent entries of variance g^2/N and g = 2: lambda_1 = 0.155 nat per step for
            large N, so that states part by a factor e every 6.5 steps.
            """,
        what_to_do="""
            Bring the recurrent weights to a spectral radius near one, use gates, drive the network more strongly, or
            truncate the gradient at the horizon that lambda_1 sets.
            """,
        references=(
            "Sompolinsky, Crisanti & Sommers (1988), Chaos in random neural networks, Phys. Rev. Lett. 61",
            "Engelken, Wolf & Abbott (2023), Lyapunov spectra of chaotic recurrent neural networks, Phys. Rev. Res. 5",
            "Mikhaeil, Monfared & Durstewitz (2022), On the difficulty of learning chaotic dynamics with RNNs, NeurIPS",
        ),
    ),
    find=find,
    fires_on=(Case(time="time", kind="plain", exponents=(0.1, -0.2), dynamics={"steps": 400}),),
    silent_on=(
        Case(),
        Case(exponents=(0.1,)),
        Case(time="time", kind="plain", exponents=(-0.1, -0.2), dynamics={"steps": 400}),
        Case(time="time", kind="plain", exponents=(0.1,), dynamics={"steps": 20}),
        Case(time="time", kind="plain", exponents=(), dynamics={"steps": 400}),
    ),
)
