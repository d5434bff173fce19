"""A quadratic Lyapunov function along a trajectory over time that settles at a fixed point.

The last state is taken for x* and the last step's Jacobian for the linearisation there, so that no step is run again.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dynstab.core.estimate import Estimate, Label
from dynstab.core.structure import LyapunovDecrease
from dynstab.estimators.metric import lyapunov_matrix, metric_gain, root
from dynstab.measures.survey import Finding, Survey

_SETTLED = 1e-3  # the last move, relative to the way from the first state to the last
_LARGEST = 512
_TAIL = 10.0  # V is not followed nearer to x* than this many times the last move


def measure_lyapunov_function(survey: Survey) -> Iterator[Finding]:
    """Of trajectories over time or of a flow, where every input settles and the last Jacobian is formed."""
    trajectory = survey.spectral
    if len(trajectory.steps) < 2:
        return
    matrix = survey.spectral_matrices[-1]
    sizes = {state.size for state in trajectory.states}
    if matrix is None or len(sizes) > 1 or max(sizes) > _LARGEST:
        return
    states = torch.stack(
        [state.layout.flatten(tuple(t[None] for t in state.value))[:, :, 0].double() for state in trajectory.states],
        dim=1,
    )[: len(matrix)]
    away = (states - states[:, -1:]).cpu()
    last_move, way = away[:, -2].norm(dim=1), away[:, 0].norm(dim=1)
    if bool((last_move > _SETTLED * way).any()) or not bool(states.isfinite().all()):
        return
    yield Finding("structure", 0, {"lyapunov": _decrease(matrix, away, last_move)})


def _decrease(matrices: Tensor, away: Tensor, last_move: Tensor) -> LyapunovDecrease:
    """From the last Jacobians (samples, n, n) and x_l - x* as (samples, states, n)."""
    count = len(matrices)
    radii = torch.linalg.eigvals(matrices.double()).abs().amax(dim=1)
    radius = _worst(radii, "dense eigenvalues of the last step, the worst input")
    metrics = [lyapunov_matrix(matrix) for matrix in matrices]
    if any(p is None for p in metrics):
        missing = Estimate.unmeasured("the fixed point is not asymptotically stable at every input: no P exists")
        return LyapunovDecrease(
            spectral_radius=radius, violations=missing, largest_growth=missing, metric_gain=missing, condition=missing
        )
    known = [p for p in metrics if p is not None]
    gains = torch.tensor([metric_gain(j, p) for j, p in zip(matrices, known, strict=True)])
    conditions = torch.tensor([float(torch.linalg.cond(root(p))) for p in known])
    values = torch.stack([((x @ p) * x).sum(dim=1) for x, p in zip(away, known, strict=True)])
    counted = (away.norm(dim=2) > _TAIL * last_move[:, None])[:, :-1]
    growth = torch.where(counted, values[:, 1:] / values[:, :-1].clamp(min=1e-300), 0.0)
    total, rises = int(counted.sum()), int((counted & (growth >= 1)).sum())
    method = f"{total} steps of {count} inputs with P of the last step"
    steps = int(counted.any(dim=0).sum())
    return LyapunovDecrease(
        spectral_radius=radius,
        violations=Estimate(value=rises / max(1, total), error=0.0, method=method, label=Label.EXACT, samples=count),
        largest_growth=Estimate(value=float(growth.amax()), error=0.0, method=method, label=Label.EXACT, samples=count),
        metric_gain=_worst(gains, "largest singular value in the metric of P, the worst input"),
        condition=_worst(conditions, "condition of the root of P, the worst input"),
        values=tuple(values.clamp(min=1e-300).log().mean(dim=0)[:steps].tolist()),
    )


def _worst(values: Tensor, method: str) -> Estimate:
    value = float(values.amax())
    noise = 64 * torch.finfo(torch.float32).eps * abs(value)
    return Estimate(value=value, error=noise, method=method, label=Label.ESTIMATE, samples=len(values))
