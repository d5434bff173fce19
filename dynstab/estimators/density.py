"""Spectral density of a symmetric operator by stochastic Lanczos quadrature.

Lanczos from a random unit vector gives a tridiagonal matrix; its eigenvalues are the nodes and the
squared first entries of its eigenvectors the weights of a Gauss quadrature of the spectral measure.

References:
    Golub & Welsch (1969), Math. Comp. 23; Ubaru, Chen & Saad (2017), SIMAX 38.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dynstab.core.estimate import CONVERGED
from dynstab.estimators.adapters import workable
from dynstab.estimators.lanczos import need_square, symmetric_part
from dynstab.estimators.orthogonal import gaussian_probes
from dynstab.estimators.result import NON_FINITE, non_finite_samples
from dynstab.linear.operator import LinearOperator


@dataclass(frozen=True, kw_only=True)
class SpectralDensity:
    """A measure on the real line that stands for the eigenvalues of a symmetric operator.

    Attributes:
        nodes, weights: (samples, probes, steps), float64; each probe's weights sum to 1.
        dimension: of the operator, so that tr f(S) is about dimension * sum(weights * f(nodes)).
    """

    nodes: Tensor
    weights: Tensor
    dimension: int
    method: str
    products: int
    outcome: str = CONVERGED

    def cumulative(self, points: Tensor) -> Tensor:
        """Share of eigenvalues at or below each point: (samples, points)."""
        below = (self.nodes[..., None] <= points).to(self.weights)
        return (self.weights[..., None] * below).sum(dim=2).mean(dim=1)


def spectral_density(
    operator: LinearOperator, *, gram: bool = False, steps: int = 30, probes: int | None = None, seed: int = 0
) -> SpectralDensity:
    """The density of (J + J^T)/2, or of J^T J with `gram`.

    More steps sharpen it; probes only average, and a probe averages over the dimension by itself, so by
    default there are enough that probes * dimension reaches 1000.

    Raises:
        ValueError: the operator is not square and `gram` is not asked for.
    """
    if not gram:
        need_square(operator)
    operator, steps = workable(operator), min(steps, operator.cols)
    probes = -(-1000 // operator.cols) if probes is None else probes
    diagonal, beside, bad = _tridiagonal(operator, gram, steps, probes, seed)
    matrix = torch.diag_embed(diagonal) + torch.diag_embed(beside, 1) + torch.diag_embed(beside, -1)
    nodes, rotation = torch.linalg.eigh(matrix)
    gone = bad[:, None, None]
    return SpectralDensity(
        nodes=nodes.masked_fill(gone, torch.nan),
        weights=rotation[..., 0, :].square().masked_fill(gone, torch.nan),
        dimension=operator.cols,
        method=f"stochastic Lanczos quadrature, {steps} steps, {probes} probes",
        products=2 * steps * probes,
        outcome=f"{NON_FINITE} in {int(bad.sum())} of {len(bad)} inputs" if bool(bad.any()) else CONVERGED,
    )


def _tridiagonal(
    operator: LinearOperator, gram: bool, steps: int, probes: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Diagonals (samples, probes, steps), subdiagonals (samples, probes, steps - 1), and what was not finite."""
    vectors = gaussian_probes(
        operator.samples, operator.cols, probes, seed=seed, dtype=operator.dtype, device=operator.device
    )
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    basis = vectors[..., None]
    diagonal, beside = [], []
    bad = torch.zeros(operator.samples, dtype=torch.bool, device=operator.device)
    for _ in range(steps):
        image = operator.rmatmat(operator.matmat(vectors)) if gram else symmetric_part(operator, vectors)
        bad = bad | non_finite_samples(image)
        image = image.masked_fill(bad[:, None, None], 0.0)
        size = image.norm(dim=1).double()
        diagonal.append((vectors * image).sum(dim=1).double())
        for _ in range(2):
            inner = torch.einsum("snpj,snp->spj", basis, image)
            image = image - torch.einsum("snpj,spj->snp", basis, inner)
        length = image.norm(dim=1).double()
        # An invariant subspace: its quadrature is exact already, and what follows gets no weight.
        length = torch.where(length > 16 * torch.finfo(operator.dtype).eps * size, length, 0.0)
        beside.append(length)
        vectors = image * torch.where(length > 0, 1 / length, 0.0).to(image.dtype)[:, None, :]
        basis = torch.cat([basis, vectors[..., None]], dim=3)
    return torch.stack(diagonal, dim=2), torch.stack(beside, dim=2)[..., :-1], bad
