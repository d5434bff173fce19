"""DS613: a field whose fastest mode dies long before the interval ends."""

from __future__ import annotations

from collections.abc import Iterator

from dynstab.core.flag import Severity
from dynstab.core.flow_dynamics import FlowDynamics
from dynstab.diagnostics.case import Case
from dynstab.diagnostics.facts import Facts, finite
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.thresholds import STIFF
from dynstab.diagnostics.words import number

_MISSED = 0.1  # of the stiffness, from which exponents are plainly not the field's

_FINER = 3.0  # times the steps that stability asks for: then accuracy, or the user, sets them


def find(facts: Facts) -> Iterator[Finding]:
    flow = facts.measurements.flow
    stiffness = finite(flow.stiffness) if flow else None
    if flow is None or stiffness is None or stiffness <= STIFF:
        return
    decays = {step.index: finite(step.fastest_decay) or 0.0 for step in flow.steps}
    worst = max(decays, key=lambda index: decays[index], default=0)
    needed = stiffness / flow.real_limit if flow.real_limit else None
    if needed is not None and flow.accepted > _FINER * needed:
        return
    steps = f"; {flow.solver} needs {number(needed)} steps for stability alone" if needed else ""
    yield Finding(
        measure="flow.stiffness",
        value=stiffness,
        threshold=STIFF,
        where=facts.place(worst),
        steps=(worst,),
        message=f"The field is stiff: its fastest mode decays at up to {number(decays.get(worst, 0.0))} per unit "
        f"time, {number(stiffness)} times over the interval{steps}.{_missed(flow, stiffness)}",
        evidence={
            "stiffness_ratio": flow.stiffness_ratio.value,
            "steps_for_stability": needed,
            "accepted": flow.accepted,
            "rejected": flow.rejected,
        },
        advice=(
            "Penalise the field's derivatives or the number of its evaluations while it trains.",
            "Scale the field's inputs and outputs to unit size, and bound its last layer.",
            "Solve by an implicit or an exponential method, outside torchdiffeq.",
        ),
    )


def _missed(flow: FlowDynamics, stiffness: float) -> str:
    """Steps at the edge of stability neither grow nor decay: the solver's map does not show what the field does."""
    gap = finite(flow.determinant_gap)
    if gap is None or gap <= _MISSED * stiffness:
        return ""
    return f" The solver's steps do not follow that decay: ln |det J| misses the field's by {number(gap)} nat."


RULE = Rule(
    code="DS613",
    name="stiff-field",
    severity=Severity.WARNING,
    summary="A mode of the vector field decays so fast that stability, not accuracy, sets the steps.",
    documentation=document(
        what_it_flags="""
            The fastest decay rate max(-Re lambda) of the field, integrated along the solution, passes 100: the mode is
            gone after a hundredth of the way, and an explicit solver must still resolve it to the end. Silent where the
            solver takes three times as many steps as its stability asks for. The ratio of
            fastest to slowest decay stands in the evidence. Where the determinant of the solver's map misses the
            integral of the field's trace by more than a tenth of that number, the message says so: singular values
            and exponents are then those of the map, not of the field.
            """,
        why_it_matters="""
            An explicit solver then spends its steps on a mode that carries nothing, training slows as the field
            stiffens, and running backwards, as the adjoint does, multiplies errors by e to that number.
            """,
        known_problems="""
            Stiffness is a property of field, interval and tolerance together; this is its simplest sign. Only the
            eigenvalues that were measured are seen.
            """,
        example="""
            x' = -1000 (x - cos t) over [0, 1]: 300 steps of dopri5, whatever the tolerance.
            """,
        what_to_do="""
            Regularise the field, rescale it, or use an implicit solver.
            """,
        references=(
            "Soderlind, Jay & Calvo (2015), Stiffness 1952-2012: sixty years in search of a definition, BIT 55",
            "Kim et al. (2021), Stiff neural ordinary differential equations, Chaos 31",
            "Finlay et al. (2020), How to train your neural ODE, ICML",
        ),
    ),
    find=find,
    fires_on=(
        Case(flow={"stiffness": 1000.0, "determinant_gap": 990.0}),
        Case(flow={"stiffness": 150.0, "real_limit": None}),
    ),
    silent_on=(
        Case(),
        Case(flow={"stiffness": 346.0, "accepted": 1000}),
        Case(flow={"stiffness": 20.0}),
        Case(flow={"stiffness": None}),
    ),
)
