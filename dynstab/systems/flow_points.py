"""The vector field at a step of its solver, and the error that the step makes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dynstab.linear.adaptive import error_ratio
from dynstab.linear.family import MapFamily
from dynstab.linear.layout import Layout
from dynstab.linear.operator import JacobianOperator, RelaidOperator
from dynstab.linear.runge_kutta import Tensors, advance, combination, stage_times, stages
from dynstab.systems.flow_problem import Problem, SolvedStep, step_of


@dataclass(frozen=True, kw_only=True)
class FieldPoint:
    """The field where a step of the trajectory starts.

    Attributes:
        step: of the solver. jacobian: df/dx there. middle: the same half a step on, None where several
            solver steps make one. local_error: root mean square of the step's error over that of the state after it.
        ratio: of the error to the tolerance, None for a fixed step.
    """

    step: SolvedStep
    jacobian: JacobianOperator
    middle: JacobianOperator | None
    local_error: float
    ratio: float | None


@torch.no_grad()
def field_point(problem: Problem, field: MapFamily, step: SolvedStep, layout: Layout, merged: bool) -> FieldPoint:
    """The field at the start of a step and in its middle, and the step's error."""
    tableau, x, h = problem.tableau, step.state, step.length
    start = x[0].new_tensor(step.start)
    jacobian = RelaidOperator(field(x, (start,))[1], layout, layout)
    slopes = stages(problem.field, tableau, x, step.times, h)
    after = advance(x, slopes, tableau.b, h)
    ratio = None
    if tableau.error:
        errors = combination(slopes, tableau.error, h)
        ratio = error_ratio(errors, x, after, problem.rtol, problem.atol) if problem.adaptive else None
    else:
        errors = _doubled(problem, step, after)
    middle = None
    if not merged:
        halfway = _halfway(problem, step, x, after)
        middle = RelaidOperator(field(halfway, (start + h / 2,))[1], layout, layout)
    return FieldPoint(
        step=step, jacobian=jacobian, middle=middle, local_error=_rms(errors) / max(_rms(after), 1e-300), ratio=ratio
    )


def _doubled(problem: Problem, step: SolvedStep, after: Tensors) -> Tensors:
    """The error of a step without an embedded pair, by Richardson from two half steps."""
    tableau, state = problem.tableau, step.state
    for start in (step.start, step.start + step.size / 2):
        half = SolvedStep(
            start=start,
            size=step.size / 2,
            state=state,
            times=state[0].new_tensor(stage_times(tableau, start, step.size / 2)),
        )
        state = step_of(problem, half, state)
    scale = 2**tableau.order / (2**tableau.order - 1)
    return tuple(scale * (fine - coarse) for fine, coarse in zip(state, after, strict=True))


def _halfway(problem: Problem, step: SolvedStep, before: Tensors, after: Tensors) -> Tensors:
    """The state in the middle, of order 4: the cubic through both ends."""
    like = before[0].new_tensor
    first = problem.field(like(step.start), before)
    last = problem.field(like(step.start + step.size), after)
    return tuple((a + b) / 2 + step.size / 8 * (f - g) for a, b, f, g in zip(before, after, first, last, strict=True))


def _rms(tensors: Tensors) -> float:
    return float(torch.cat([tensor.flatten() for tensor in tensors]).double().square().mean().sqrt())
