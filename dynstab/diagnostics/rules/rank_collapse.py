"""DS501: the tokens become the same."""

from __future__ import annotations

from collections.abc import Iterator

from dynstab.core.flag import Severity
from dynstab.core.measurements import StateMeasurement
from dynstab.diagnostics.case import Case
from dynstab.diagnostics.facts import Facts, finite
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.thresholds import RANK_LOSS, SIMILAR_INPUT, SIMILAR_TOKENS
from dynstab.diagnostics.words import number


def find(facts: Facts) -> Iterator[Finding]:
    measured = [state for state in facts.measurements.states if _known(state)]
    if len(measured) < 2 or _similarity(measured[0]) >= SIMILAR_INPUT:
        return
    start = _rank(measured[0])
    collapsed = [s for s in measured[1:] if _similarity(s) > SIMILAR_TOKENS and _rank(s) < RANK_LOSS * start]
    if not collapsed:
        return
    first, worst = collapsed[0], max(collapsed, key=_similarity)
    yield Finding(
        measure="states.token_similarity",
        value=_similarity(worst),
        threshold=SIMILAR_TOKENS,
        where=facts.state_name(first.index),
        steps=tuple(step.index for step in facts.system.steps if measured[0].index <= step.index < first.index),
        message=f"Tokens become parallel: their mean cosine rises from {number(_similarity(measured[0]))} to "
        f"{number(_similarity(worst))} at {facts.state_name(worst.index)}, the effective rank falls from "
        f"{number(start)} to {number(_rank(worst))} of its maximum.",
        evidence={
            "first_state": first.index,
            "worst_state": worst.index,
            "collapsed_states": [state.index for state in collapsed],
            "input_similarity": _similarity(measured[0]),
            "input_effective_rank": start,
            "effective_rank": _rank(worst),
            "effective_rank_threshold": RANK_LOSS * start,
        },
        advice=(
            "Scale the residual branches by one over the root of their number: collapse slows with the branch.",
            "Strengthen the path that does not mix tokens: the skip connection and the MLP.",
            "Check for over-smoothing: uniform attention or graph averaging in every layer needs a path around it.",
        ),
    )


def _known(state: StateMeasurement) -> bool:
    return finite(state.token_similarity) is not None and finite(state.effective_rank) is not None


def _similarity(state: StateMeasurement) -> float:
    return finite(state.token_similarity) or 0.0


def _rank(state: StateMeasurement) -> float:
    return finite(state.effective_rank) or 0.0


RULE = Rule(
    code="DS501",
    name="rank-collapse",
    severity=Severity.WARNING,
    summary="The tokens of an input become nearly parallel along depth.",
    documentation=document(
        what_it_flags="""
            At some state the mean pairwise cosine of an input's tokens passes 0.95 and the effective rank of
            the tokens is less than half of the first state's, and the tokens did not enter that way (first
            cosine below 0.9).
            """,
        why_it_matters="""
            Attention averages. Without a skip path tokens converge to one vector doubly exponentially in
            depth; then attention has nothing left to tell apart, and the gradients of queries and keys vanish
            although the overall gradient does not.
            """,
        known_problems="""
            A common mean vector or one dominant feature also makes cosines large, as in many trained language
            models: the rank is asked for as well, but look at the states before acting. Pooled states with
            few tokens collapse on purpose. Inputs that repeat one token are already collapsed and keep the
            rule silent.
            """,
        example="""
            Attention layers without skip connections: after 12 layers the cosine of any two tokens is 0.999.
            """,
        what_to_do="""
            Keep skip connections, scale the branches by 1/sqrt(L), or start attention near the identity.
            """,
        references=(
            "Dong, Cordonnier & Loukas (2021), Attention is not all you need: pure attention loses rank, ICML",
            "Noci et al. (2022), Signal propagation in transformers: rank collapse, NeurIPS",
            "Roy & Vetterli (2007), The effective rank, EUSIPCO",
        ),
    ),
    find=find,
    fires_on=(
        Case(states={12: {"token_similarity": 0.99, "effective_rank": 0.1}}),
        Case(names="h.attn", states={i: {"token_similarity": 0.97, "effective_rank": 0.2} for i in range(5, 13)}),
    ),
    silent_on=(
        Case(),
        Case(every_state={"token_similarity": 0.99, "effective_rank": 0.1}),
        Case(states={12: {"token_similarity": 0.99}}),
        Case(states={0: {"token_similarity": 0.92}, 12: {"token_similarity": 0.99, "effective_rank": 0.1}}),
        Case(every_state={"token_similarity": None}),
    ),
)
