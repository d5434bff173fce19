"""Are the steps those that the solver took, and is their product the gradient through it?"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from dynstab.capture.verify import tolerance
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
"""The same for a solver whose own steps cannot be had, or that steps more accurately than it interpolates."""

_INTERPOLANT = 5
"""torchdiffeq interpolates by a quartic, whatever the method: its error is of this order in the step."""


def flow_checks(trajectory: FlowTrajectory) -> tuple[Check, ...]:
    """Made where the field lives, see `Source.visit`; none where no step was accepted."""
    if not trajectory.steps:
        return ()
    precision = trajectory.states[0].value[0].dtype
    # Of several steps in one, the first: rounding grows along the others.
    operators = [first_of(step.jacobian) for step in trajectory.steps]
    checks = (_check_states(trajectory, precision), check_adjoint(operators, precision))
    if isinstance(trajectory.gradients, str):
        return checks
    return (*checks, _check_gradient(trajectory, trajectory.gradients[1], precision))


def _check_states(trajectory: FlowTrajectory, precision: torch.dtype) -> Check:
    """A step from a state of the solver's leads to the solver's next state."""
    problem, steps, last = trajectory.problem, trajectory.solution.steps, trajectory.solution.last
    pairs = list(zip(steps, [*(step.state for step in steps[1:]), last], strict=True))
    *inner, (final, end) = [*pairs[: -1 : max(1, len(pairs) // MOST_STEPS)], pairs[-1]]
    exact, loose = _Scale(limit=tolerance(precision)), _Scale.of(trajectory, precision)
    # torchdiffeq starts steps that share no slope with one that it has left over.
    scale = loose if problem.adaptive and not problem.tableau.first_same_as_last else exact
    with torch.no_grad():
        error = max((scale.error(step_of(problem, step, step.state), to, step.state) for step, to in inner), default=0)
        of_last = loose.error(step_of(problem, final, final.state), end, final.state)
    if trajectory.solution.answer is not None:
        of_last = max(of_last, loose.error(last, trajectory.solution.answer, final.state))
    return Check(
        check="output equals eager",
        passed=error <= scale.limit and of_last <= loose.limit,
        error=max(error, of_last),
        detail=f"{_count(len(inner) + 1)} from the solver's own states, limit {scale.limit:g}, of the last one "
        f"{loose.limit:.2g}{loose.relative_to}",
    )


@dataclass(frozen=True, kw_only=True)
class _Scale:
    """What errors are relative to: the largest entry of a tensor at either end of its step, and `floor`.

    A part of the state that passes through 0, as the log-density of a normalising flow, would else be asked for
    digits that no solver has: it controls rtol |x| + atol, and does so for all parts together.
    """

    limit: float
    floor: float = 0.0

    @classmethod
    def of(cls, trajectory: FlowTrajectory, precision: torch.dtype) -> _Scale:
        """For what an adaptive solver may change by its interpolation, or by its leftover slopes."""
        problem, least = trajectory.problem, tolerance(precision)
        if not problem.adaptive:
            return cls(limit=least)
        if not problem.own_steps or problem.tableau.order > _INTERPOLANT:
            return cls(limit=_STAND_IN, floor=_size(trajectory.solution.last))
        rtol = max(problem.rtol, least / _SLACK)
        return cls(limit=_SLACK * rtol, floor=problem.atol / rtol)

    @property
    def relative_to(self) -> str:
        return f" relative to |x| + {self.floor:.2g}" if self.floor else ""

    def error(self, got: Tensors, expected: Tensors, before: Tensors) -> float:
        """The largest over the tensors; infinite where one is not finite."""
        gaps = (
            float((a - b).abs().max()) / max(self.floor + _size((b, x)), 1e-300)
            for a, b, x in zip(got, expected, before, strict=True)
            if b.numel()
        )
        return max((gap if gap < inf else inf for gap in gaps), default=0.0)


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
    """How far the gradient through the solver may be from ours, relative to its norm."""
    problem = trajectory.problem
    if not problem.own_steps:
        return _STAND_IN
    if not problem.adaptive or (problem.tableau.first_same_as_last and problem.source != "dynstab"):
        return least
    # torchdiffeq starts other steps with a slope that it has left over; our own solver starts with another step.
    return max(least, _SLACK * (problem.rtol + problem.atol / max(_size(trajectory.solution.last), 1e-30)))


def _count(steps: int) -> str:
    return f"{steps} step{'s' * (steps != 1)}"


def _size(tensors: Tensors) -> float:
    return max((float(tensor.abs().max()) for tensor in tensors if tensor.numel()), default=0.0)
