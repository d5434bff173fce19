"""DS401: NaN or infinity."""

from __future__ import annotations

import math
from collections.abc import Iterator

from dynstab.core.estimate import Estimate
from dynstab.core.flag import Severity
from dynstab.core.measurements import StateMeasurement
from dynstab.diagnostics.case import Case, logarithm
from dynstab.diagnostics.facts import Facts, blows_up, finite, first_broken_state, last_broken_derivative
from dynstab.diagnostics.readings import signal_reading
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.words import percent

_FORWARD_ADVICE = (
    "Look for NaN in the weights of this step: a checkpoint that was saved after divergence keeps them.",
    "Look for a division, logarithm or root at zero, and for a softmax of a row that is masked whole.",
    "If the states before it are large, it is overflow: reduce the scale, or compute in float32 or bfloat16.",
)
_OVERFLOW_ADVICE = (
    "The states before it grow until they overflow: remove the growth first, see exploding-signal.",
    *_FORWARD_ADVICE[:2],
)
_FIRST_ADVICE = (
    "Look for NaN or infinity in the inputs, and in what makes the first state of them: an embedding, a stem.",
    "If the inputs are large, it is overflow: normalise them, or compute in float32 or bfloat16.",
)
_BACKWARD_ADVICE = (
    "Look for a root, norm or power at zero in this step: its value is finite there and its derivative is not.",
    "Look for infinity in its weights: a saturating activation makes a finite value of it, and NaN of the derivative.",
    "Replace `where(condition, f(x), 0)` by evaluating f at safe points only: NaN times zero is NaN.",
)


def find(facts: Facts) -> Iterator[Finding]:
    state = first_broken_state(facts)
    if state is not None:
        yield _forward(facts, state)
        return
    step = last_broken_derivative(facts)
    if not blows_up(facts) and (step is not None or _is_nan(facts.measurements.network.log_gradient_gain)):
        yield _backward(facts, step)


def _forward(facts: Facts, state: StateMeasurement) -> Finding:
    share = finite(state.nonfinite_fraction)
    before = tuple(step.index for step in facts.system.steps if step.target == state.index)
    amount = f", in {percent(share)} of its entries" if share else ""
    origin = (
        f"it arises in {facts.place(before[0])}"
        if before
        else "it is there from the start, in the input or the embedding"
    )
    return Finding(
        measure="states.nonfinite_fraction",
        value=share if share is not None else math.nan,
        threshold=0.0,
        where=facts.state_name(state.index),
        steps=before,
        message=f"NaN or infinity appears first in {facts.state_name(state.index)}{amount}; {origin}.",
        evidence={"first_state": state.index},
        advice=_forward_advice(facts) if before else _FIRST_ADVICE,
    )


def _forward_advice(facts: Facts) -> tuple[str, ...]:
    """Overflow can be told from a NaN that comes out of nowhere by the states before it."""
    signal = signal_reading(facts)
    return _OVERFLOW_ADVICE if signal is not None and signal.trouble > 0 else _FORWARD_ADVICE


def _backward(facts: Facts, step: int | None) -> Finding:
    place = "the gradient" if step is None else f"the derivative of {facts.place(step)}"
    return Finding(
        measure="network.log_gradient_gain" if step is None else "steps.rms_gain",
        value=math.nan,
        threshold=0.0,
        where="network" if step is None else facts.place(step),
        steps=() if step is None else (step,),
        message=f"All states are finite, but {place} is not.",
        evidence={"first_step_backward": step},
        advice=_BACKWARD_ADVICE,
    )


def _is_nan(estimate: Estimate) -> bool:
    return estimate.value is not None and math.isnan(estimate.value)


RULE = Rule(
    code="DS401",
    name="non-finite",
    severity=Severity.ERROR,
    summary="NaN or infinity in a state or in a derivative.",
    documentation=document(
        what_it_flags="""
            The first state, from the input on, with an entry that is NaN or infinite; or, where all states
            are finite, the first step, from the output back, whose derivative is not.
            """,
        why_it_matters="""
            One NaN reaches every later state, the loss and, after one update, every weight. All other numbers
            of the report from there on are void.
            """,
        known_problems="""
            Masks that hold minus infinity are context, not states, and do not count. Overflow in the
            analysis' own dtype can differ from that of training. The last step of a differential equation that
            blows up is left to unfinished-solution.
            """,
        example="""
            A LayerNorm without epsilon on a constant vector: 0/0 in block 3, NaN everywhere after it.
            """,
        what_to_do="""
            Begin at the named place: its weights, its divisions, roots and logarithms, and the size of what
            enters.
            """,
        references=(
            "Goldberg (1991), What every computer scientist should know about floating-point, ACM Surveys 23",
            "Micikevicius et al. (2018), Mixed precision training, ICLR",
        ),
    ),
    find=find,
    fires_on=(
        Case(states={i: {"nonfinite_fraction": 1.0, "rms": float("nan")} for i in range(4, 13)}),
        Case(states={0: {"nonfinite_fraction": 0.001}}),
        Case(steps={5: {"rms_gain": float("nan"), "relative_gain": float("nan")}}),
        Case(network={"log_gradient_gain": logarithm(float("nan"))}),
    ),
    silent_on=(
        Case(),
        Case(every_state={"nonfinite_fraction": None}),
        Case(steps={11: {"rms_gain": float("inf")}}, flow={"outcome": "the state became infinite", "reached": 0.9}),
        Case(steps={5: {"kreiss_constant": float("inf"), "log_determinant": float("-inf")}}),
    ),
)
