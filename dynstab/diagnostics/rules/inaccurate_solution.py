"""DS616: a solver so coarse that the network is the solver, not the equation."""

from __future__ import annotations

from collections.abc import Iterator

from dynstab.core.flag import Severity
from dynstab.diagnostics.case import Case
from dynstab.diagnostics.facts import Facts, at_least
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.thresholds import SOLUTION_ERROR
from dynstab.diagnostics.words import share


def find(facts: Facts) -> Iterator[Finding]:
    flow = facts.measurements.flow
    error = at_least(flow.solution_error) if flow else None
    if flow is None or error is None or error <= SOLUTION_ERROR:
        return
    errors = {step.index: step.local_error.value or 0.0 for step in flow.steps}
    worst = max(errors, key=lambda index: errors[index], default=0)
    yield Finding(
        measure="flow.solution_error",
        value=flow.solution_error.value or error,
        threshold=SOLUTION_ERROR,
        where=facts.place(worst),
        steps=(worst,),
        message=f"{flow.solver}'s answer misses the solution of the equation by "
        f"{share(flow.solution_error.value or error)} its size; the largest error arises at {facts.place(worst)}.",
        evidence={"largest_local_error": errors.get(worst), "steps": flow.accepted, "order": flow.order},
        advice=(
            "Take smaller steps or a tighter rtol, and see whether the model's output changes.",
            "If it does, the model is bound to this solver: evaluate it with the one it was trained with.",
            "Train with a solver chosen at random, or with an adaptive one.",
        ),
    )


RULE = Rule(
    code="DS616",
    name="inaccurate-solution",
    severity=Severity.WARNING,
    summary="The numerical solution is far from the solution of the differential equation.",
    documentation=document(
        what_it_flags="""
            The last state is more than 5 % of its norm away from a reference solved with a hundredth of the
            tolerance (or near rounding, for a fixed step), over all inputs.
            """,
        why_it_matters="""
            Such a network has learned its solver's errors. It is no flow any more: trajectories may cross, it changes
            with the step size, and what theory says of the equation does not hold for it.
            """,
        known_problems="""
            Where the flow is chaotic or very expanding, small errors grow large at any tolerance.
            """,
        example="""
            a field of norm 10 over [0, 1] under explicit Euler with ten steps.
            """,
        what_to_do="""
            Refine the steps, or accept the discrete network and analyse it as one (`--system depth`).
            """,
        references=(
            "Ott, Katiyar, Hennig & Tiemann (2021), ResNet after all: neural ODEs and their numerical solution, ICLR",
            "Queiruga et al. (2020), Continuous-in-depth neural networks",
        ),
    ),
    find=find,
    fires_on=(Case(flow={"solution_error": 0.3}),),
    silent_on=(Case(), Case(flow={"solution_error": 0.01}), Case(flow={"solution_error": None})),
)
