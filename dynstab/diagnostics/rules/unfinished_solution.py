"""DS611: a differential equation that its solver did not solve to the end."""

from __future__ import annotations

from collections.abc import Iterator

from dynstab.core.estimate import CONVERGED
from dynstab.core.flag import Severity
from dynstab.diagnostics.case import Case
from dynstab.diagnostics.facts import Facts
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.words import number, share


def find(facts: Facts) -> Iterator[Finding]:
    flow = facts.measurements.flow
    if flow is None or flow.outcome == CONVERGED:
        return
    part = (flow.reached - flow.start) / (flow.end - flow.start) if flow.end != flow.start else 1.0
    rest = f"Every other number is of the part before that, {share(part)} the interval."
    yield Finding(
        measure="flow.reached",
        value=flow.reached,
        threshold=flow.end,
        where=f"t = {number(flow.reached)}",
        message=f"{flow.solver} did not reach t = {number(flow.end)}: {flow.outcome}. "
        f"{rest if flow.accepted else 'No step was accepted.'}",
        evidence={"share": part, "accepted": flow.accepted, "rejected": flow.rejected, "outcome": flow.outcome},
        advice=_ADVICE if flow.accepted else _NOTHING_ACCEPTED,
    )


_ADVICE = (
    "Bound the field: a tanh or a spectral norm on its last layer, or weight decay while it trains.",
    "Where the step size underflows, the field is not smooth or grows without end: look at the last state.",
    "Where the field becomes infinite or NaN, look for a root, a logarithm or a division that leaves its domain.",
    "Where the steps are exhausted, the field is stiff (see stiff-field), or fixed steps are many: a shorter interval "
    "tells which.",
)
_NOTHING_ACCEPTED = (
    "Look for NaN or infinity in the initial state, and in what the field gives there.",
    "Where both are finite, the field is too large for any step: bound it.",
)


RULE = Rule(
    code="DS611",
    name="unfinished-solution",
    severity=Severity.ERROR,
    summary="The solver of a differential equation stopped before the end of the interval.",
    documentation=document(
        what_it_flags="""
            The state became infinite or NaN, or was so from the start, the step size fell below what rounding can
            resolve, or the solver used up its steps. The outcome names which, and the time.
            """,
        why_it_matters="""
            What the model returns there is no solution. All other numbers of the report speak of the part of the
            trajectory before that time, and say nothing of the rest.
            """,
        known_problems="""
            A stiff problem within reach of an implicit solver is flagged too. The analysis follows 4000 attempts of a
            solver: beyond them the model's own solution may well go on to the end.
            """,
        example="""
            x' = x^2 from x(0) = 1 blows up at t = 1, whatever solves it.
            """,
        what_to_do="""
            Bound the field, shorten the interval, or take a solver for stiff problems.
            """,
        references=("Hairer, Norsett & Wanner (1993), Solving ordinary differential equations I, Springer",),
    ),
    find=find,
    fires_on=(
        Case(flow={"outcome": "the step size underflowed: stopped at t = 0.4", "reached": 0.4}),
        Case(
            flow={
                "outcome": "the field became infinite or NaN: stopped at t = 0",
                "reached": 0.0,
                "accepted": 0,
                "steps": (),
            }
        ),
        Case(flow={"outcome": "max_num_steps was not enough: stopped at t = 0.9", "reached": 0.9, "accepted": 3000}),
    ),
    silent_on=(Case(), Case(flow={"outcome": "converged"})),
)
