"""DS612: a solver that makes grow what its field does not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from dynstab.core.flag import Severity
from dynstab.core.flow_dynamics import SolverStep
from dynstab.diagnostics.case import Case
from dynstab.diagnostics.facts import Facts, finite
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.thresholds import GROWN_BY_SOLVER, ROUNDING
from dynstab.diagnostics.words import count, magnitude, number


def find(facts: Facts) -> Iterator[Finding]:
    flow = facts.measurements.flow
    if flow is None:
        return
    outside = {step.index: size for step in flow.steps if (size := _amplified(step)) > 1 + ROUNDING}
    grown = _most_grown([_amplified(step) for step in flow.steps]) * flow.accepted / max(1, len(flow.steps))
    if not outside or grown <= GROWN_BY_SOLVER or (flow.adaptive and all(map(_tolerated, flow.steps))):
        return
    worst = max(outside, key=lambda index: outside[index])
    step = next(step for step in flow.steps if step.index == worst)
    yield Finding(
        measure="flow.steps.neutral_amplification",
        value=outside[worst],
        threshold=1.0,
        steps=tuple(sorted(outside)),
        message=f"{flow.solver} grows where its field does not: a mode that decays or oscillates is multiplied by "
        f"|R(h lambda)| = {number(outside[worst])} at {facts.place(worst)}, and by up to a factor "
        f"{magnitude(grown)} on the way ({len(outside)} of {count(len(flow.steps), 'step')} like this).",
        evidence={"worst_step": worst, "grown": grown, "step_size": abs(step.size), "real_limit": flow.real_limit},
        advice=_advice(flow.adaptive, step.fastest_decay.value, flow.real_limit),
    )


def _amplified(step: SolverStep) -> float:
    """|R| of the worst mode that does not grow; 1 where it is not known."""
    size = finite(step.neutral_amplification)
    return 1.0 if size is None else size


def _tolerated(step: SolverStep) -> bool:
    """Whatever left the region in this step stays below the error that was allowed."""
    ratio = finite(step.tolerance_ratio)
    return ratio is not None and ratio <= 1 + ROUNDING


def _most_grown(sizes: Iterable[float]) -> float:
    """ln of the largest product over successive steps: what a damped step takes away again does not count."""
    most = grown = 0.0
    for size in sizes:
        grown = max(0.0, grown + math.log(max(size, 1e-300)))
        most = max(most, grown)
    return most


def _advice(adaptive: bool, decay: float | None, limit: float | None) -> tuple[str, ...]:
    larger = "Take a solver with a larger region: rk4 for euler or midpoint, dopri5 for any fixed step."
    damp = "Bound the field's eigenvalues: weight decay or spectral normalisation of its layers."
    if adaptive:
        return ("Tighten rtol, or take away the smallest step (min_step): it overrules the error control.", damp)
    if decay and limit:
        return (f"Take steps of {number(limit / decay)} or less.", larger, damp)
    return ("Take smaller steps.", larger, damp)


RULE = Rule(
    code="DS612",
    name="solver-outside-stability-region",
    severity=Severity.WARNING,
    summary="The solver's step lies outside its stability region for modes that do not grow.",
    documentation=document(
        what_it_flags="""
            For an eigenvalue lambda of the field's Jacobian with Re lambda <= 0 and a step h, the solver multiplies
            that mode by R(h lambda), and |R| > 1. Flagged where this adds up to more than 0.1 nat over successive
            steps, those with |R| < 1 among them counted too. Steps whose error an adaptive solver has seen and found
            within its tolerance do not count: there see stiff-field.
            """,
        why_it_matters="""
            What the equation damps, the network amplifies: what was trained is the solver, not the equation, and it
            changes with the step size. Explicit Euler makes every undamped oscillation grow.
            """,
        known_problems="""
            The factor follows the worst mode of each step, which need not be the same one. Eigenvalues at a step's
            start say little of fields that change within the step, and products of non-normal steps need not follow
            their eigenvalues. Of large states only the outermost eigenvalues are seen.
            """,
        example="""
            x' = -30 x under rk4 with h = 0.1: h lambda = -3, beyond -2.785, and R = 1.375 a step.
            """,
        what_to_do="""
            Smaller steps, a solver with a larger region, or a field with smaller eigenvalues.
            """,
        references=(
            "Hairer & Wanner (1996), Solving ordinary differential equations II, IV.2, Springer",
            "Queiruga et al. (2020), Continuous-in-depth neural networks",
        ),
    ),
    find=find,
    fires_on=(
        Case(flow={"adaptive": False}, solver_steps={"neutral_amplification": 1.375, "tolerance_ratio": None}),
        Case(flow={"adaptive": False, "solver": "euler"}, solver_steps={"neutral_amplification": 1.05}),
        Case(solver_steps={"neutral_amplification": 1.375, "tolerance_ratio": 4.0}),
    ),
    silent_on=(
        Case(),
        Case(solver_steps={"neutral_amplification": 0.99}),
        Case(solver_steps={"neutral_amplification": 1.375, "tolerance_ratio": 0.9}),
        Case(solver_steps={"neutral_amplification": 1.002}),
        Case(solver_steps={"amplification": 1.8}),
        Case(solver_steps={"neutral_amplification": None}),
    ),
)
