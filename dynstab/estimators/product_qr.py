"""Singular values of a long product, in logarithms, without multiplying it out.

P = F_M ... F_1. A pass takes the transposed, reversed chain F_1^T ... F_M^T, carries an orthonormal frame
through it by QR, and leaves triangular factors whose product has the same singular values. Pass by
pass the off-diagonal part shrinks like (sigma_j / sigma_i)^2 and sum ln |R_ii| tends to ln sigma_i, whatever
the condition of P. Close values converge slowly: once the chain is graded, its product is D N with a
diagonal D and a well-conditioned unit triangular N, and one Jacobi SVD finds all to high relative accuracy.

References:
    Stewart (1997), "On graded QR decompositions of products of matrices"; Oliveira & Stewart (2000),
    SIAM J. Matrix Anal. 21; Demmel & Veselic (1992), SIMAX 13; Drmac & Veselic (2008), SIMAX 29.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from scipy.linalg.lapack import dgejsv  # pyright: ignore[reportAttributeAccessIssue]
from torch import Tensor

from dynstab.core.estimate import CONVERGED, Label
from dynstab.estimators.ranked_qr import ranked_qr
from dynstab.estimators.result import Result, blank, non_finite_samples

_PASSES_BEFORE_JACOBI = 4
_JACOBI_RANGE = 600.0  # nat: e^600 is what float64 holds on both sides of 1


def log_singular_values(
    factors: Sequence[Tensor], *, tolerance: float = 1e-10, passes: int = 60, floor: float = 0.0
) -> Result:
    """ln sigma_i of the product of (samples, rows, cols) matrices given in the order in which they act.

    Args:
        tolerance: on the change of any ln sigma_i from pass to pass. passes: at most.
        floor: a direction is lost where the first pass leaves at most this share of a column (and never less
            than float64's own rounding): 16 eps of the dtype that the entries were computed in, for
            factors that were not made by a walk that saw to it.

    Returns:
        Values (samples, k), descending, k the smallest size in the chain; -inf where rank is lost.
        `errors` bound the truncation by the last change and the rounding by eps times the local condition of
        every factor.

    Raises:
        ValueError: no factor.
    """
    if not factors:
        raise ValueError("a product needs at least one factor")
    bad = non_finite_samples(*factors)
    chain, scale = _scaled([factor.double().masked_fill(bad[:, None, None], 0.0) for factor in factors])
    settled = _passes(chain, tolerance, passes, floor)
    values, order = (settled.logs + scale[:, None]).sort(dim=1, descending=True)
    still = f"still moving by {float(settled.change.max()):.1e} nat after {settled.count} passes"
    result = Result(
        values=values,
        errors=(settled.change + settled.noise).gather(1, order),
        label=Label.EXACT if settled.done else Label.ESTIMATE,
        method=f"product QR, {settled.count} passes over {len(factors)} factors{settled.finish}",
        outcome=CONVERGED if settled.done else still,
    )
    return blank(result, bad)


class _Settled(NamedTuple):
    """ln |R_ii| after the last pass, how much that changed them, and what rounding did; (samples, k) each."""

    logs: Tensor
    change: Tensor
    noise: Tensor
    done: bool
    count: int
    finish: str = ""


def _passes(chain: list[Tensor], tolerance: float, passes: int, floor: float) -> _Settled:
    """Pass after pass until nothing changes, or until a Jacobi SVD can finish."""
    chain, logs, first_doubt = _transposed_pass(chain, floor)
    change, noise, done, count = torch.full_like(logs, torch.inf), first_doubt, False, 1
    while not done and count < passes:
        chain, following, doubt = _transposed_pass(chain)
        change, logs, count = _change(following, logs), following, count + 1
        noise = first_doubt[:, : doubt.shape[1]].amax(dim=1, keepdim=True) + doubt
        done = bool((change <= noise.clamp(min=tolerance)).all())
        if not done and count == _PASSES_BEFORE_JACOBI:
            polished = _jacobi(chain, logs)
            if polished is not None:
                noise = noise.amax(dim=1, keepdim=True).expand_as(polished)
                return _Settled(polished, torch.zeros_like(polished), noise, True, count, " and a Jacobi SVD")
    return _Settled(logs, change, noise, done, count)


def _scaled(factors: list[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Factors with largest entry 1, and the sum of the logarithms taken out (samples,)."""
    scale = torch.zeros(len(factors[0]), dtype=torch.float64, device=factors[0].device)
    chain = []
    for factor in factors:
        size = factor.abs().amax(dim=(1, 2))
        size = torch.where(size > 0, size, 1.0)
        chain.append(factor / size[:, None, None])
        scale = scale + size.log()
    return chain, scale


def _transposed_pass(chain: list[Tensor], floor: float = 0.0) -> tuple[list[Tensor], Tensor, Tensor]:
    """Triangular factors of the transposed product in the order in which they act, sum ln |R_ii|, and what
    rounding did to it: R_ii is known to eps times the length of its column, the sum to eps times its size."""
    samples, rows, _ = chain[-1].shape
    frame = torch.eye(rows, dtype=torch.float64, device=chain[0].device).expand(samples, -1, -1)
    lost = torch.zeros(samples, rows, dtype=torch.bool, device=frame.device)
    logs = torch.zeros(samples, rows, dtype=torch.float64, device=frame.device)
    # Entries that were computed in a coarser dtype are no better known than that, see `floor`.
    eps = max(torch.finfo(torch.float64).eps, floor / 16)
    doubt, triangular = torch.zeros_like(logs), []
    for factor in reversed(chain):
        found = ranked_qr(factor.mT @ frame, lost, max(rows * eps, floor))
        frame, lost, width = found.q, found.lost, found.logs.shape[1]
        triangular.append(found.r)
        logs = logs[:, :width] + found.logs
        local = (found.lengths / found.logs.exp()).masked_fill(lost, 0.0)
        doubt = doubt[:, :width] + 4 * eps * (local + logs.abs().masked_fill(logs.isinf(), 0.0))
    return triangular, logs, doubt


def _change(new: Tensor, old: Tensor) -> Tensor:
    same = (new == old[:, : new.shape[1]]) | (new.isneginf() & old[:, : new.shape[1]].isneginf())
    return (new - old[:, : new.shape[1]]).abs().masked_fill(same, 0.0).nan_to_num(nan=torch.inf)


def _jacobi(chain: list[Tensor], logs: Tensor) -> Tensor | None:
    """ln sigma_i of a graded triangular chain by Jacobi SVDs; None where a product cannot be held."""
    found = []
    for sample, log in enumerate(logs.cpu()):
        rank = int(log.isfinite().sum())
        if rank and float(log[:rank].max() - log[:rank].min()) > _JACOBI_RANGE:
            return None
        # Lost directions stand last, with zero rows and columns in the product: leave them out.
        values = _graded_svd([factor[sample, :rank, :rank].cpu() for factor in chain])
        if values is None or not bool(log[:rank].isfinite().all()):
            return None
        found.append(torch.nn.functional.pad(values, (0, len(log) - rank), value=-torch.inf))
    return torch.stack(found).to(logs.device)


def _graded_svd(factors: list[Tensor]) -> Tensor | None:
    """ln sigma_i of a product of triangular matrices, written as exp(at) N with the rows of N of order one."""
    unit = torch.eye(len(factors[0]), dtype=torch.float64)
    at = torch.zeros(len(unit), dtype=torch.float64)
    if not len(at):
        return at
    for factor in factors:
        after = at + torch.diagonal(factor).abs().log()
        # The entries below the diagonal are zero, whatever their weight would be.
        weighted = factor * (at[None, :] - after[:, None]).exp()
        unit, at = torch.where(factor == 0, 0.0, weighted) @ unit, after
    if not bool(unit.isfinite().all()):
        return None
    middle = (at.max() + at.min()) / 2
    values = _jacobi_svd(unit * (at - middle).exp()[:, None])
    return None if values is None else values.log() + middle


def _jacobi_svd(matrix: Tensor) -> Tensor | None:
    # Columns of wildly different size are what this SVD is exact for: job 'C', values alone.
    values, _, _, work, _, info = dgejsv(matrix.T.numpy(), joba=0, jobu=3, jobv=3, jobr=0, jobt=0, jobp=0)
    if info != 0:
        return None
    return torch.as_tensor(values * (work[0] / work[1]), dtype=torch.float64)
