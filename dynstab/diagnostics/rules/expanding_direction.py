"""DS103: one direction grows although the typical gradient does not."""

from __future__ import annotations

from collections.abc import Iterator

from dynstab.core.estimate import Label
from dynstab.core.flag import Severity
from dynstab.diagnostics.case import Case
from dynstab.diagnostics.facts import Facts
from dynstab.diagnostics.gradient_finding import leading_growth
from dynstab.diagnostics.readings import gradient_reading
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.thresholds import HEALTHY, SEVERE
from dynstab.diagnostics.words import factor


def find(facts: Facts) -> Iterator[Finding]:
    growth, reading = leading_growth(facts), gradient_reading(facts)
    if growth is None or growth <= HEALTHY or (reading is not None and reading.trouble > 0):
        return
    leading = facts.measurements.lyapunov.finite_time[0]
    if leading.label in (Label.UPPER, Label.PROBABILISTIC):
        return
    typical = "while the typical gradient does not" if reading else "how the typical gradient does was not measured"
    source = "input" if facts.system.axis == "depth" else "first state"
    yield Finding(
        measure="lyapunov.finite_time",
        value=growth,
        threshold=SEVERE if growth > SEVERE else HEALTHY,
        where="network",
        message=f"One direction of the {source} grows by {factor(growth)} through {facts.through}, {typical}.",
        evidence={"leading_exponent": leading.value, "steps": facts.depth, "label": leading.label.value},
        advice=(
            "Expect a few inputs with far larger gradients than the rest: clip the norm of the gradient.",
            "If training is erratic, bound the largest singular value (spectral normalisation, weight decay).",
        ),
    )


RULE = Rule(
    code="DS103",
    name="expanding-direction",
    severity=Severity.INFO,
    summary="One direction grows by more than a factor 20 through the depth while the typical gradient is healthy.",
    documentation=document(
        what_it_flags="""
            lambda_1 L, the leading finite-time exponent times the number of steps, less the growth of the
            signal itself, passes 3, and the mean gradient gain does not. lambda_1 L is the logarithm of the
            largest singular value of the whole Jacobian.
            """,
        why_it_matters="""
            A typical gradient is the root mean square over all directions; one direction in thousands may
            grow without moving it. Inputs or losses that meet this direction see large gradients, and
            adversarial perturbations find it.
            """,
        known_problems="""
            Trained networks expand the directions that they discriminate, by design: this is information, not
            a fault. At finite depth the leading QR exponent lies below this one and can even have the other
            sign.
            """,
        example="""
            A classifier whose last blocks amplify the one direction that separates two classes by e^4.
            """,
        what_to_do="""
            Nothing, unless training is erratic or robustness matters: then clip gradients, or bound the
            largest singular values of the steps that contribute most.
            """,
        references=(
            "Benettin, Galgani, Giorgilli & Strelcyn (1980), Lyapunov characteristic exponents, Meccanica 15",
            "Pennington, Schoenholz & Ganguli (2017), Resurrecting the sigmoid through dynamical isometry, NeurIPS",
        ),
    ),
    find=find,
    silent_in=("training",),
    fires_on=(
        Case(exponents=(0.4, 0.1, 0.0)),
        Case(exponents=(0.8, 0.0), kind="plain"),
        Case(exponents=(0.8, 0.0), network={"log_gradient_gain": None}),
    ),
    silent_on=(
        Case(),
        Case(exponents=()),
        Case(exponents=(0.4,), gradient_rate=0.4),
        Case(exponents=(float("nan"),)),
    ),
)
