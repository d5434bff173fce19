"""Where a map without drive rests, and whether it would return there."""

from __future__ import annotations

import torch
from torch import Tensor

from dynstab.core.estimate import Estimate, Label
from dynstab.core.time_dynamics import FixedPoint
from dynstab.estimators import dense
from dynstab.estimators.arnoldi import outer_eigenvalues
from dynstab.estimators.result import Result
from dynstab.linear.operator import LinearOperator
from dynstab.measures.aggregate import summarise
from dynstab.measures.effort import Effort
from dynstab.systems.trajectory import State, Step, Trajectory

RESTS = 1e-3
"""Movement, relative to the state, up to which a state counts as resting: the tolerance of fixed-point solvers."""

_MOST_LISTED = 128
_FEWEST_RATES = 4


def find_fixed_point(looked_at: Trajectory, whole: Trajectory, effort: Effort) -> FixedPoint | None:
    """The last state where the states have come to rest, else the first (where a model's own solver stopped).

    None where neither rests.
    """
    for trajectory, index in ((whole, -1), (looked_at, -1), (whole, 0)):
        step = trajectory.steps[index]
        source, target = trajectory.states[step.source], trajectory.states[step.target]
        movement = _movement(source, target)
        if bool((movement <= RESTS).all()):
            return _at(step, source, movement, _contraction(whole), effort)
    return None


def _columns(state: State) -> Tensor:
    """(samples, size), float64."""
    return state.layout.flatten(tuple(tensor[None] for tensor in state.value))[:, :, 0].double()


def _movement(source: State, target: State) -> Tensor:
    before, after = _columns(source), _columns(target)
    moved, size = (after - before).norm(dim=1), before.norm(dim=1)
    return torch.where(moved == 0, 0.0, moved / size)


def _at(step: Step, state: State, movement: Tensor, contraction: Estimate, effort: Effort) -> FixedPoint:
    worst = float(movement.amax())
    found = _eigenvalues(step.jacobian, effort)
    radii = found.values.abs()
    rows = torch.arange(len(radii), device=radii.device)
    largest = radii.argmax(dim=1)
    radius = found.with_values(radii[rows, largest][:, None], found.errors[rows, largest][:, None])
    top = int(radius.values[:, 0].argmax())
    chosen = radius.with_values(radius.values[top : top + 1], radius.errors[top : top + 1])
    listed = found.values[0][found.values[0].abs().argsort(descending=True)][:_MOST_LISTED]
    # The state is off the fixed point by the movement, and the radius with it by about as much.
    estimate = summarise(chosen).model_copy(update={"samples": len(radii)})
    if worst > 0:
        doubt = (estimate.error or 0.0) + worst * (estimate.value or 0.0)
        estimate = estimate.model_copy(update={"error": doubt, "label": Label.ESTIMATE})
    return FixedPoint(
        state=state.name,
        movement=Estimate(value=worst, error=0.0, method="largest over inputs", label=Label.EXACT, samples=len(radii)),
        spectral_radius=estimate,
        contraction=contraction,
        eigenvalues=tuple((z.real, z.imag) for z in listed.tolist()),
    )


def _eigenvalues(operator: LinearOperator, effort: Effort) -> Result:
    if max(operator.shape) <= effort.dense_size:
        return dense.eigenvalues(dense.matrices_of(operator), products=operator.cols)
    return outer_eigenvalues(operator, 4, budget=max(96, effort.eigen_products)).by_magnitude


def _contraction(whole: Trajectory) -> Estimate:
    """ln of the ratio of successive movements, least squares over the last steps that rounding does not govern."""
    states = [_columns(state) for state in whole.states]
    moves = torch.stack([(b - a).norm(dim=1) for a, b in zip(states, states[1:], strict=False)], dim=1)
    floor = 1e3 * torch.finfo(whole.states[0].value[0].dtype).eps * torch.stack([s.norm(dim=1) for s in states[1:]], 1)
    rates = []
    for move, least in zip(moves, floor, strict=True):
        above = (move > least).to(torch.int8).cumprod(0).sum()
        logs = move[: int(above)].log()[int(above) // 2 :]
        if len(logs) >= _FEWEST_RATES:
            time = torch.arange(len(logs), dtype=torch.float64)
            centred = time - time.mean()
            rates.append(float((centred * (logs - logs.mean())).sum() / centred.square().sum()))
    if not rates:
        return Estimate.unmeasured("the states were at rest too soon to tell the rate", unit="nat/step")
    values = torch.tensor(rates, dtype=torch.float64)
    scatter = float(values.std()) if len(values) > 1 else None
    return Estimate(
        value=float(values.max()),
        unit="nat/step",
        method="fit to the distances between successive states, the slowest input",
        spread=scatter,
        samples=len(values),
    )
