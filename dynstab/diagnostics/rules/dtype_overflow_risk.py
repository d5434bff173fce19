"""DS402: states near the largest number of the training dtype."""

from __future__ import annotations

from collections.abc import Iterator

from dynstab.core.flag import Severity
from dynstab.diagnostics.case import Case
from dynstab.diagnostics.facts import Facts, finite
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.thresholds import HEADROOM, RANGES
from dynstab.diagnostics.words import number

_CHANNELS = "Find the channels that grow (a few massive ones are typical) and lower the initial scale of their step."
_SEE = "Remove the growth itself, see exploding-gradient and exploding-signal."


def _advice(dtype: str) -> tuple[str, ...]:
    """A wider range helps float16 alone: bfloat16 has that of float32, and no training has more."""
    if dtype != "float16":
        return (_SEE, _CHANNELS)
    return (
        "Train in bfloat16, which has the range of float32, instead of float16.",
        _CHANNELS,
        "Keep this part of the network in float32 under autocast.",
    )


def find(facts: Facts) -> Iterator[Finding]:
    yield from _states(facts)
    yield from _gradients(facts)


def _gradients(facts: Facts) -> Iterator[Finding]:
    """At the measured rate gradients leave the finite range before they reach the first state."""
    depth = facts.depth_to_range
    if depth is None or depth > facts.depth or not facts.gradient_direction > 0:
        return
    yield Finding(
        measure="network.underflow_depth",
        value=depth,
        threshold=float(facts.depth),
        where="network",
        steps=tuple(step.index for step in facts.system.steps if step.index < facts.depth - depth),
        message=f"At the measured rate gradients pass the largest {facts.trains_in} ({number(facts.range.largest)}) "
        f"after {number(depth)} of {facts.depth} steps back.",
        evidence={"dtype": facts.trains_in, "largest_of_dtype": facts.range.largest},
        advice=tuple(dict.fromkeys((_SEE, *_advice(facts.trains_in)))),
    )


def _states(facts: Facts) -> Iterator[Finding]:
    """The largest entry of any state against the largest number of the dtype."""
    peaks = {state.index: finite(state.max_abs) for state in facts.measurements.states}
    known = {index: peak for index, peak in peaks.items() if peak is not None}
    if not known:
        return
    worst = max(known, key=lambda index: known[index])
    dtype, limit, severity = _limit(facts, known[worst])
    if severity is None:
        return
    beyond = tuple(index for index in sorted(known) if known[index] > limit)
    yield Finding(
        measure="states.max_abs",
        value=known[worst],
        threshold=limit,
        severity=severity,
        where=facts.state_name(worst),
        steps=tuple(step.index for step in facts.system.steps if step.target in beyond),
        message=f"The largest entry of {facts.state_name(worst)} is {number(known[worst])}; {dtype} ends at "
        f"{number(RANGES[dtype].largest)}.",
        evidence={"dtype": dtype, "largest_of_dtype": RANGES[dtype].largest, "states_beyond": list(beyond)},
        advice=_advice(dtype),
    )


def _limit(facts: Facts, peak: float) -> tuple[str, float, Severity | None]:
    """The dtype that the peak endangers, the limit that it passes and how severe that is.

    A model in float32 or bfloat16 with entries that float16 cannot hold is told so, as information.
    """
    dtype = facts.trains_in if facts.trains_in in RANGES else "float32"
    largest, half = RANGES[dtype].largest, RANGES["float16"].largest
    if peak > largest:
        return dtype, largest, Severity.ERROR
    if peak > largest / HEADROOM:
        return dtype, largest / HEADROOM, Severity.WARNING
    return "float16", half, Severity.INFO if peak > half else None


RULE = Rule(
    code="DS402",
    name="dtype-overflow-risk",
    severity=Severity.WARNING,
    summary="States or gradients come near or pass the largest number of the training dtype.",
    documentation=document(
        what_it_flags="""
            The largest entry of some state lies within a factor 10 of the largest finite number of the dtype
            in which the model trains (65504 for float16), an error beyond it. Information where the model
            trains in another dtype but float16 could not hold the entry. A warning also where gradients, at
            the measured rate, pass that number.
            """,
        why_it_matters="""
            Beyond that number an entry becomes infinite, and one step later NaN. Other inputs are larger than
            the few that were measured, which is what the factor 10 is for.
            """,
        known_problems="""
            The analysis runs in float32 or float64 and predicts: intermediate values inside a step can
            overflow earlier than its state. The dtype of the weights stands for that of training, which
            autocast can change. Entries are counted, not norms: a sum of squares overflows float16 at 256.
            """,
        example="""
            A T5 whose feed-forward outputs reach 80,000: fine in bfloat16, NaN in float16.
            """,
        what_to_do="""
            Use bfloat16, or keep the step in float32, or lower the scale of the channels that grow.
            """,
        references=(
            "Micikevicius et al. (2018), Mixed precision training, ICLR",
            "Sun, Chen, Kolter & Liu (2024), Massive activations in large language models, COLM",
            "IEEE 754-2019, Standard for floating-point arithmetic",
        ),
    ),
    find=find,
    fires_on=(
        Case(training_dtype="float16", states={9: {"max_abs": 2e4}}),
        Case(training_dtype="torch.float16", states={9: {"max_abs": 1e5}}),
        Case(states={9: {"max_abs": 1e5}}),
        Case(network={"underflow_depth": 8.0, "raw_log_gradient_gain": 17.0}, training_dtype="float16"),
    ),
    silent_on=(
        Case(),
        Case(training_dtype="float16"),
        Case(states={9: {"max_abs": 2e4}}),
        Case(every_state={"max_abs": None}, training_dtype="float16"),
        Case(network={"underflow_depth": 8.0, "raw_log_gradient_gain": None}, training_dtype="float16"),
    ),
)
