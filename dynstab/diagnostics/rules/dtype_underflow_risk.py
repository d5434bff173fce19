"""DS403: numbers that the training dtype rounds to zero."""

from __future__ import annotations

from collections.abc import Iterator

from dynstab.core.flag import Severity
from dynstab.core.measurements import StateMeasurement
from dynstab.diagnostics.case import Case
from dynstab.diagnostics.facts import Facts, finite
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.words import number

_ADVICE = (
    "Scale the loss (GradScaler) so that gradients stay inside the range, or train in bfloat16.",
    "Remove the decay itself: initialisation, skip connections, see vanishing-gradient and vanishing-signal.",
)


def find(facts: Facts) -> Iterator[Finding]:
    yield from _gradients(facts)
    yield from _states(facts)


def _gradients(facts: Facts) -> Iterator[Finding]:
    """At the measured rate gradients leave the normal range before they reach the first state."""
    depth = facts.depth_to_range
    if depth is None or depth > facts.depth or not facts.gradient_direction < 0:
        return
    yield Finding(
        measure="network.underflow_depth",
        value=depth,
        threshold=float(facts.depth),
        where="network",
        steps=tuple(step.index for step in facts.system.steps if step.index < facts.depth - depth),
        message=f"At the measured rate gradients fall below the smallest normal {facts.trains_in} "
        f"({number(facts.range.tiny)}) after {number(max(depth, 0.0))} of {facts.depth} steps back.",
        evidence={"dtype": facts.trains_in, "tiny": facts.range.tiny},
        advice=_ADVICE,
    )


def _states(facts: Facts) -> Iterator[Finding]:
    """More than 1 % of a state's nonzero entries are below the normal range."""
    tiny = facts.range.tiny
    small = [state for state in facts.measurements.states if 0 < (finite(state.smallest_magnitude) or 0.0) < tiny]
    if not small:
        return
    worst = min(small, key=_typical)
    most = _typical(worst) < tiny
    yield Finding(
        measure="states.smallest_magnitude",
        value=finite(worst.smallest_magnitude) or 0.0,
        threshold=tiny,
        severity=Severity.ERROR if most else Severity.WARNING,
        where=facts.state_name(worst.index),
        steps=tuple(step.index for step in facts.system.steps if step.target == worst.index),
        message=f"{'Most' if most else 'More than 1 %'} of the entries of {facts.state_name(worst.index)} are below "
        f"{number(tiny)}, the smallest normal {facts.trains_in}.",
        evidence={"dtype": facts.trains_in, "rms": worst.rms.value, "states": [state.index for state in small]},
        advice=_ADVICE,
    )


def _typical(state: StateMeasurement) -> float:
    value = finite(state.rms)
    return float("inf") if value is None else value


RULE = Rule(
    code="DS403",
    name="dtype-underflow-risk",
    severity=Severity.WARNING,
    summary="Gradients or states fall below the smallest normal number of the training dtype.",
    documentation=document(
        what_it_flags="""
            The depth to underflow, ln(g/tiny)/|lambda| at the measured rate lambda of the gradient, is less
            than the depth of the network; or more than 1 % of a state's nonzero entries are below the
            smallest normal number of the training dtype (6.1e-5 for float16), an error where its root mean
            square is.
            """,
        why_it_matters="""
            Below the normal range numbers lose their digits and soon become zero. Weights behind them get no
            update, without any message.
            """,
        known_problems="""
            Gradients of a real loss start at their own size, about 1/batch, not at 1. Loss scaling moves the
            range and is not known here. Sparse states have many zeros by design: only nonzero entries are
            counted.
            """,
        example="""
            A float16 network whose gradient shrinks by 0.5 nat a layer: after some 19 layers it is below
            6.1e-5.
            """,
        what_to_do="""
            Use loss scaling or bfloat16; then remove the decay.
            """,
        references=(
            "Micikevicius et al. (2018), Mixed precision training, ICLR",
            "IEEE 754-2019, Standard for floating-point arithmetic",
        ),
    ),
    find=find,
    fires_on=(
        Case(network={"underflow_depth": 8.0, "raw_log_gradient_gain": -14.0}, training_dtype="float16"),
        Case(training_dtype="float16", states={3: {"smallest_magnitude": 1e-5}}),
        Case(training_dtype="float16", every_state={"smallest_magnitude": 1e-7, "rms": 1e-5}),
    ),
    silent_on=(
        Case(),
        Case(training_dtype="float16"),
        Case(states={3: {"smallest_magnitude": 1e-5}}),
        Case(network={"underflow_depth": float("inf"), "raw_log_gradient_gain": -14.0}),
        Case(network={"underflow_depth": None}, every_state={"smallest_magnitude": None}),
    ),
)
