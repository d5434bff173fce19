"""Are the states and the derivatives of a recurrence those of the model that it was found in?"""

from __future__ import annotations

import torch

from dynstab.capture.verify import deviation, tolerance
from dynstab.core.report import Check
from dynstab.linear.driven import DrivenMap, Tensors
from dynstab.linear.operator import JacobianOperator
from dynstab.systems.time_recurrence import Recurrence
from dynstab.systems.trajectory import Trajectory
from dynstab.systems.verify import check_adjoint

GRADIENT_STEPS = 20
"""How far back derivatives are compared: rounding adds up along a sequence."""


def verify_run(
    recurrence: Recurrence, driven: DrivenMap, run: list[Tensors], trajectory: Trajectory
) -> tuple[Check, ...]:
    """The states, the gradient through the last steps, and the adjoint identity."""
    # A few steps: every one of them is the same graph at another point.
    operators = [
        step.jacobian for step in trajectory.steps[-GRADIENT_STEPS:] if isinstance(step.jacobian, JacobianOperator)
    ]
    return (
        _check_states(recurrence, run),
        _check_gradient(recurrence, driven, run),
        check_adjoint(operators, run[0][0].dtype),
    )


def _check_states(recurrence: Recurrence, run: list[Tensors]) -> Check:
    """The states are those of the model's own run; where it shows none, those of the step in eager mode."""
    expected = {t: state for t, state in (recurrence.expected or {}).items() if t < len(run)}
    told = f"the model's own state at {_times(len(expected))}"
    if not expected:
        times = sorted({0, len(run) // 2, len(run) - 2} & set(range(len(run) - 1)))
        with torch.no_grad():
            expected = {t + 1: recurrence.step(run[t], recurrence.at(t)) for t in times}
        told = f"the step in eager mode at {_times(len(expected))}"
    error = max(deviation(list(run[t]), list(state)) for t, state in expected.items())
    # Rounding adds up along a sequence, and a chaotic one magnifies it: one step is what a chain is judged by.
    limit = tolerance(run[0][0].dtype) * (10 if recurrence.expected else 1)
    return Check(check="states equal eager", passed=error <= limit, error=error, detail=f"{told}, limit {limit:g}")


def _times(count: int) -> str:
    return "one time" if count == 1 else f"{count} times"


def _check_gradient(recurrence: Recurrence, driven: DrivenMap, run: list[Tensors]) -> Check:
    """The pulls of the last steps against autograd through the step itself."""
    low, high = max(0, len(run) - 1 - GRADIENT_STEPS), len(run) - 1
    generator = torch.Generator().manual_seed(4)
    cotangents = tuple(torch.randn(tensor.shape, generator=generator).to(tensor) for tensor in run[high])
    leaves = tuple(tensor.detach().clone().requires_grad_() for tensor in run[low])
    with torch.enable_grad():
        state = leaves
        for time in range(low, high):
            state = recurrence.step(state, recurrence.at(time))
        expected = torch.autograd.grad(state, leaves, cotangents, allow_unused=True)
    moving = tuple(tensor[None] for tensor in cotangents)
    for time in reversed(range(low, high)):
        moving = driven.jacobian(run[time], recurrence.at(time)).pull_tensors(moving)
    found = torch.cat([tensor.flatten() for tensor in moving]).double()
    known = [
        torch.zeros_like(leaf) if gradient is None else gradient
        for gradient, leaf in zip(expected, leaves, strict=True)
    ]
    truth = torch.cat([tensor.flatten() for tensor in known]).double()
    error = float((found - truth).norm() / truth.norm().clamp_min(1e-30)) if bool(truth.any()) else float(found.norm())
    limit = 10 * tolerance(run[0][0].dtype)
    broken = not bool(truth.isfinite().all())
    detail = f"the last {high - low} steps, limit {limit:g}" + (", the gradient is not finite" if broken else "")
    return Check(
        check="product of the steps equals autograd", passed=broken or error <= limit, error=error, detail=detail
    )
