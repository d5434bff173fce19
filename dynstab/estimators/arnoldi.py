"""Extreme eigenvalues, matrix-free: block Arnoldi, restarted from its best Ritz vectors.

With an orthonormal basis V of a block Krylov space, the eigenvalues of H = V^T J V approximate those
of J that lie outermost. (theta, V y) is an exact eigenpair of a matrix within ||J V y - theta V y|| of
J; to first order the eigenvalue is off by that residual times its condition number, 1/|x^H y| with the
left eigenvector x of H. For a non-normal J this is an estimate, no bound.

References:
    Saad (2011), Numerical Methods for Large Eigenvalue Problems, ch. 6.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dynstab.core.estimate import CONVERGED, Label
from dynstab.estimators.adapters import workable
from dynstab.estimators.eigen import eigensystem
from dynstab.estimators.krylov import KrylovSpace
from dynstab.estimators.orthogonal import complete, extend
from dynstab.estimators.result import Result, blank
from dynstab.linear.operator import LinearOperator


@dataclass(frozen=True, kw_only=True)
class OuterEigenvalues:
    """The eigenvalues of largest modulus and the rightmost ones; one run found both.

    Attributes:
        by_magnitude, by_real_part: complex128 values (samples, k), outermost first.
    """

    by_magnitude: Result
    by_real_part: Result

    def spectral_radius(self) -> Result:
        """max |lambda|, (samples, 1)."""
        outermost = self.by_magnitude.column(0)
        return outermost.with_values(outermost.values.abs(), outermost.errors)

    def spectral_abscissa(self, *, identity: float = 1.0) -> Result:
        """max Re lambda(J) - identity, (samples, 1)."""
        rightmost = self.by_real_part.column(0)
        return rightmost.with_values(rightmost.values.real - identity, rightmost.errors)


def outer_eigenvalues(
    operator: LinearOperator,
    k: int = 1,
    *,
    rtol: float = 1e-2,
    budget: int = 400,
    block: int = 4,
    basis: int = 80,
    seed: int = 0,
) -> OuterEigenvalues:
    """The outermost eigenvalues by modulus and by real part.

    Args:
        k: of each kind. rtol: stop once each error estimate is below rtol times the spectral radius.
        budget: of products per sample. basis: the largest basis; a restart keeps a sixth of it
            from each end of the spectrum and goes on (a thick restart).

    Raises:
        ValueError: the operator is not square.
    """
    if not operator.square:
        raise ValueError(f"eigenvalues need a square operator, got {operator.rows} x {operator.cols}")
    operator, k, width = workable(operator), min(k, operator.cols), min(block, operator.cols)
    space = KrylovSpace(operator, operator.matmat, cost=1, width=width, seed=seed)
    while True:
        space.expand()
        pairs = _ritz(space)
        picks = pairs.outermost(pairs.values.abs(), k), pairs.outermost(pairs.values.real, k)
        tolerance = rtol * pairs.radius()[:, None] + space.noise[:, None]
        done = all(bool((errors <= tolerance)[~space.bad].all()) for _, errors, _ in picks)
        done = done and picks[0][0].shape[1] == k
        if done or space.exhausted or space.products + width > budget:
            break
        if space.basis.shape[2] + width > max(basis, 4 * k + 2 * width):
            _restart(space, pairs.spanning(max(k, basis // 6)), seed=seed + space.products)
    method = f"block Arnoldi, block {width}, basis up to {basis}, residual times condition"
    outcome = CONVERGED if done or space.exhausted else f"budget of {budget} products reached"
    largest, rightmost = (_result(space, *pick[:2], method, outcome) for pick in picks)
    return OuterEigenvalues(by_magnitude=largest, by_real_part=rightmost)


def _result(space: KrylovSpace, values: Tensor, errors: Tensor, method: str, outcome: str) -> Result:
    found = Result(
        values=values,
        errors=errors + space.noise[:, None],
        label=Label.ESTIMATE,
        method=method,
        products=space.products,
        outcome=outcome,
    )
    return blank(found, space.bad)


@dataclass(frozen=True, kw_only=True)
class _RitzPairs:
    """All Ritz values (samples, j), errors likewise, vectors (samples, j, j), and which of them exist."""

    values: Tensor
    errors: Tensor
    vectors: Tensor
    present: Tensor

    def radius(self) -> Tensor:
        return self.values.abs().where(self.present, 0.0).amax(dim=1)

    def outermost(self, key: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """The k pairs with the largest key: values, errors, vectors."""
        order = key.where(self.present, -torch.inf).argsort(dim=1, descending=True)[:, :k]
        vectors = self.vectors.gather(2, order[:, None, :].expand(-1, self.vectors.shape[1], -1))
        return self.values.gather(1, order), self.errors.gather(1, order), vectors

    def spanning(self, k: int) -> Tensor:
        """The vectors of the k outermost of each kind, (samples, j, 2 k)."""
        keys = self.values.abs(), self.values.real
        return torch.cat([self.outermost(key, k)[2] for key in keys], dim=2)


def _ritz(space: KrylovSpace) -> _RitzPairs:
    system = eigensystem(space.basis.mT @ space.images)
    shifted = system.vectors * system.values[:, None, :]
    real, imaginary = (
        space.images @ inside.to(space.basis.dtype) - space.basis @ scaled.to(space.basis.dtype)
        for inside, scaled in ((system.vectors.real, shifted.real), (system.vectors.imag, shifted.imag))
    )
    residuals = (real.double().square() + imaginary.double().square()).sum(dim=1).sqrt()
    # A zero column of the basis is no direction; its Ritz vector lives on that column alone.
    weight = torch.einsum("sj,sjk->sk", (space.basis != 0).any(dim=1).double(), system.vectors.abs().square())
    errors = torch.where(residuals > 0, residuals * system.conditions, 0.0)
    return _RitzPairs(values=system.values, errors=errors, vectors=system.vectors, present=weight > 0.5)


def _restart(space: KrylovSpace, wanted: Tensor, *, seed: int) -> None:
    """Keep the real span of the wanted Ritz vectors, whose images are known, and expand from there."""
    kept, _ = extend(None, torch.cat([wanted.real, wanted.imag], dim=2))
    kept = kept[:, :, (kept != 0).any(dim=1).any(dim=0)].to(space.basis.dtype)
    space.basis, space.images = space.basis @ kept, space.images @ kept
    space.next = complete(space.basis, extend(space.basis, space.next)[0], seed=seed)
