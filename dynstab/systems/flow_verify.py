"""Are the steps those that the solver took, and is their product the gradient through it?"""

from __future__ import annotations

import torch
from torch import Tensor

from dynstab.capture.verify import deviation, tolerance
from dynstab.core.report import Check
from dynstab.linear.runge_kutta import Tensors
from dynstab.systems.flow_gradients import draw
from dynstab.systems.flow_problem import step_of
from dynstab.systems.flow_trajectory import MOST_STEPS, FlowTrajectory, first_of
from dynstab.systems.verify import check_adjoint

_SLACK = 30.0
"""An adaptive solver interpolates to the end of the interval and lets its first step depend on the state: both
move the answer by a few times its tolerance."""


_STAND_IN = 1e-2
"""The same for a solver whose own steps cannot be had."""


def flow_checks(trajectory: FlowTrajectory) -> tuple[Check, ...]:
    """Made where the field lives, see `Source.visit`."""
    precision = trajectory.states[0].value[0].dtype
    # Of several steps in one, the first: rounding grows along the others.
    operators = [first_of(step.jacobian) for step in trajectory.steps]
    checks = (_check_states(trajectory, precision), check_adjoint(operators, precision))
    if isinstance(trajectory.gradients, str):
        return checks
    return (*checks, _check_gradient(trajectory, trajectory.gradients[1], precision))


def _check_states(trajectory: FlowTrajectory, precision: torch.dtype) -> Check:
    """A step from a state of the solver's leads to the solver's next state."""
    steps, last = trajectory.solution.steps, trajectory.solution.last
    pairs = list(zip(steps, [*(step.state for step in steps[1:]), last], strict=True))
    looked_at = [*pairs[: -1 : max(1, len(pairs) // MOST_STEPS)], pairs[-1]]
    with torch.no_grad():
        errors = [deviation(step_of(trajectory.problem, step, step.state), state) for step, state in looked_at]
    inner, limit = max(errors[:-1], default=0.0), tolerance(precision)
    loose = _limit(trajectory, limit)
    if trajectory.problem.adaptive and not trajectory.problem.tableau.first_same_as_last:
        limit = loose  # torchdiffeq starts such steps with a slope that it has left over
    if trajectory.solution.answer is not None:
        errors[-1] = max(errors[-1], deviation(last, trajectory.solution.answer))
    return Check(
        check="output equals eager",
        passed=inner <= limit and errors[-1] <= loose,
        error=max(errors),
        detail=f"{len(errors)} steps from the solver's own states, limit {limit:g}, of the last one {loose:.2g}",
    )


def _check_gradient(trajectory: FlowTrajectory, gradients: list[Tensor], precision: torch.dtype) -> Check:
    """The product of the steps' transposed Jacobians against autograd through the solver, at the first state."""
    moving: Tensors = tuple(tensor[None] for tensor in draw(trajectory.states[-1].value))
    for step in reversed(trajectory.steps):
        moving = step.jacobian.pull_tensors(moving)  # type: ignore[attr-defined]
    got = torch.cat([tensor.flatten() for tensor in moving]).double()
    expected = torch.cat([tensor.flatten() for tensor in gradients[: len(moving)]]).double()
    error = float((got - expected).norm() / expected.norm().clamp_min(1e-300))
    limit = _limit(trajectory, 10 * tolerance(precision))
    return Check(
        check="product of the steps equals autograd",
        passed=error <= limit,
        error=error,
        detail=f"the gradient through the solver, at the first state, limit {limit:.2g}",
    )


def _limit(trajectory: FlowTrajectory, least: float) -> float:
    """How far an adaptive solver's answer may be from our steps, relative to the last state."""
    problem = trajectory.problem
    if not problem.adaptive:
        return least
    if not problem.own_steps:
        return _STAND_IN
    size = max(float(tensor.abs().max()) for tensor in trajectory.solution.last)
    return max(least, _SLACK * (problem.rtol + problem.atol / max(size, 1e-30)))
