"""How far a numerical solution is from the solution, and whether the way back leads to where it came from."""

from __future__ import annotations

from dataclasses import replace
from math import inf, isfinite

import torch

from dynstab.core.estimate import CONVERGED, Estimate, Label
from dynstab.linear.runge_kutta import DOPRI5, Tensors, stage_times
from dynstab.systems.flow_problem import Problem, Solution, SolvedStep, solve, step_of

_FINER = 1e-2
_MOST = 4000


def solution_error(problem: Problem, solution: Solution) -> Estimate:
    """|x_L - reference| / |reference|, over all inputs, with a reference of much smaller error."""
    least = 10 * torch.finfo(solution.last[0].dtype).eps
    rtol = max(least, _FINER * problem.rtol) if problem.adaptive else least
    if problem.adaptive and problem.rtol < 3 * rtol:
        return Estimate.unmeasured("the tolerance lies below what this dtype resolves, nothing is finer")
    reference = solve(replace(problem, tableau=DOPRI5, adaptive=True, rtol=rtol, atol=rtol), most=_MOST)
    if reference.outcome != CONVERGED:
        return Estimate.unmeasured(f"a finer solution: {reference.outcome}")
    error = _distance(solution.last, reference.last) / max(_norm(reference.last), 1e-300)
    doubt = rtol * len(reference.steps)
    return Estimate(value=error, error=doubt, method=f"against dopri5 at rtol {rtol:.1e}", label=Label.ESTIMATE)


def reversal_error(problem: Problem, solution: Solution) -> Estimate:
    """|x_0 recovered - x_0| / |x_0| (the difference itself where x_0 is zero), by the same solver run backwards.

    Infinite where fixed steps back leave the numbers.
    """
    if problem.adaptive:
        back = solve(replace(problem, initial=solution.last, start=solution.reached, end=problem.start), most=_MOST)
        if back.outcome != CONVERGED:
            return Estimate.unmeasured(f"on the way back {back.outcome}")
        found = back.last
    else:
        found = _walked_back(problem, solution)
    size = _norm(problem.initial)
    value = _distance(found, problem.initial) / (size if size > 0 else 1.0)
    return Estimate(
        value=value if isfinite(value) else inf,
        method=f"{problem.solver} run backwards from the last state",
        label=Label.ESTIMATE,
    )


@torch.no_grad()
def _walked_back(problem: Problem, solution: Solution) -> Tensors:
    """Over the same grid."""
    state = solution.last
    for step in reversed(solution.steps):
        end = step.start + step.size
        times = state[0].new_tensor(stage_times(problem.tableau, end, -step.size))
        state = step_of(problem, SolvedStep(start=end, size=-step.size, state=state, times=times), state)
    return state


def _distance(a: Tensors, b: Tensors) -> float:
    return _norm(tuple(x - y for x, y in zip(a, b, strict=True)))


def _norm(tensors: Tensors) -> float:
    return float(torch.cat([tensor.flatten() for tensor in tensors]).double().norm())
