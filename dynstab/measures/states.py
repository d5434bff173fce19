"""The states themselves: their size, what is lost of their rank, and what a number format would lose."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

import torch
from torch import Tensor

from dynstab.core.estimate import CONVERGED, Estimate, Label
from dynstab.estimators.result import NON_FINITE
from dynstab.measures.aggregate import exact, summarise
from dynstab.measures.survey import Finding, Survey
from dynstab.measures.tokens import columns_of, root_mean_square, token_matrix
from dynstab.systems.trajectory import State, Trajectory

_MOST_ENTRIES = 2**22
_MOST_POSITIONS = 512


def measure_states(survey: Survey) -> Iterator[Finding]:
    """Every state, then the growth from state to state."""
    trajectory = survey.trajectory
    for state in trajectory.states:
        yield Finding("state", state.index, _state_fields(state, survey.sizes[:, state.index]))
    for step in trajectory.steps:
        yield Finding("step", step.index, _growth_fields(trajectory, step.index, survey.sizes))


def _state_fields(state: State, size: Tensor) -> dict[str, Estimate]:
    entries = columns_of(state)
    finite = entries.isfinite()
    return {
        "rms": summarise(exact(size, method="root mean square of the entries")),
        "max_abs": _single(_largest(entries), "largest entry over all inputs", entries.shape[0]),
        "smallest_magnitude": _quantile(entries[finite]).model_copy(update={"samples": entries.shape[0]}),
        "nonfinite_fraction": _single(_share(~finite), "count over all inputs", entries.shape[0]),
        **_rank_fields(state),
    }


def _growth_fields(trajectory: Trajectory, index: int, sizes: Tensor) -> dict[str, Estimate]:
    step = trajectory.steps[index]
    before, after = sizes[:, index], sizes[:, index + 1]
    fields = {"norm_growth": summarise(exact(after / before, method="ratio of root mean squares"), mean="geometric")}
    if step.kind != "residual" or step.residual_coefficient is None:
        fields["update_ratio"] = Estimate.unmeasured("not a residual step")
        return fields
    source, target = trajectory.states[index], trajectory.states[index + 1]
    update = columns_of(target) - step.residual_coefficient * columns_of(source)
    ratio = exact(root_mean_square(update) / before, method="root mean square of the update over that of the state")
    fields["update_ratio"] = summarise(ratio)
    return fields


def _single(value: float, method: str, samples: int) -> Estimate:
    outcome = CONVERGED if abs(value) < inf else NON_FINITE
    return Estimate(value=value, error=0.0, method=method, label=Label.EXACT, outcome=outcome, samples=samples)


def _share(mask: Tensor) -> float:
    return float(mask.double().mean()) if mask.numel() else 0.0


def _largest(entries: Tensor) -> float:
    # amax is NaN where any entry is, which is what should be told.
    return float(entries.abs().amax()) if entries.numel() else 0.0


def _quantile(finite: Tensor) -> Estimate:
    """The 1% quantile of the magnitudes of nonzero entries."""
    magnitudes = finite[finite != 0].abs().double()
    if not magnitudes.numel():
        return Estimate.unmeasured("no finite entry differs from zero")
    stride = -(-magnitudes.numel() // _MOST_ENTRIES)
    chosen = magnitudes[::stride]
    position = max(1, round(0.01 * chosen.numel()))
    method = "1% quantile of nonzero magnitudes" + (f", every {stride}th entry" if stride > 1 else "")
    return Estimate(
        value=float(chosen.kthvalue(position).values),
        error=0.0 if stride == 1 else None,
        method=method,
        label=Label.EXACT if stride == 1 else Label.ESTIMATE,
    )


def _rank_fields(state: State) -> dict[str, Estimate]:
    matrix = token_matrix(state)
    if matrix is None:
        missing = Estimate.unmeasured("no positions share features")
        return {"effective_rank": missing, "token_similarity": missing}
    if not bool(matrix.isfinite().all()):
        missing = Estimate.unmeasured("the state is not finite")
        return {"effective_rank": missing, "token_similarity": missing}
    stride = -(-matrix.shape[1] // _MOST_POSITIONS)
    note = f", every {stride}th position" if stride > 1 else ""
    matrix = matrix[:, ::stride]
    return {
        "effective_rank": summarise(exact(effective_rank(matrix), method="entropy of squared singular values" + note)),
        "token_similarity": summarise(exact(token_similarity(matrix), method="mean pairwise cosine" + note)),
    }


def effective_rank(matrix: Tensor) -> Tensor:
    """exp(entropy of sigma_i^2 / sum sigma^2) / min(positions, features), (samples,) in (0, 1]; 0 for a zero matrix.

    References:
        Roy & Vetterli (2007), EUSIPCO: the effective rank.
    """
    tall = matrix if matrix.shape[1] <= matrix.shape[2] else matrix.mT
    tall = tall / tall.abs().amax(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(matrix.dtype).tiny)
    # One input at a time: in float64 a whole batch of wide states would double the memory.
    gram = torch.stack([rows.double() @ rows.double().mT for rows in tall])
    squared = torch.linalg.eigvalsh(gram).clamp(min=0)
    total = squared.sum(dim=1, keepdim=True)
    share = squared / total.clamp(min=torch.finfo(torch.float64).tiny)
    rank = torch.special.entr(share).sum(dim=1).exp() / share.shape[1]
    return torch.where(total.squeeze(1) > 0, rank, 0.0)


def token_similarity(matrix: Tensor) -> Tensor:
    """Mean cosine over pairs of different positions, (samples,); zero positions count as cosine 0."""
    count = matrix.shape[1]
    lengths = torch.linalg.vector_norm(matrix, dim=2, keepdim=True, dtype=torch.float64)
    units = matrix.double() * torch.where(lengths > 0, 1 / lengths, 0.0)
    own = (lengths > 0).double().sum(dim=(1, 2))
    return (units.sum(dim=1).square().sum(dim=1) - own) / (count * (count - 1))
