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
from dynstab.estimators.adapters import rounding_of, workable
from dynstab.estimators.eigen import eigensystem
from dynstab.estimators.orthogonal import complete, extend, random_frame
from dynstab.estimators.result import Result, blank, non_finite_samples
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
    first = random_frame(
        operator.samples, operator.cols, width, seed=seed, dtype=operator.dtype, device=operator.device
    )
    space = _ArnoldiSpace(operator, first)
    while True:
        space.expand()
        pairs = space.ritz()
        picks = pairs.outermost(pairs.values.abs(), k), pairs.outermost(pairs.values.real, k)
        tolerance = rtol * pairs.radius()[:, None] + space.noise[:, None]
        done = all(bool((errors <= tolerance)[~space.bad].all()) for _, errors, _ in picks)
        done = done and picks[0][0].shape[1] == k
        if done or space.exhausted or space.products + width > budget:
            break
        if space.basis.shape[2] + width > max(basis, 4 * k + 2 * width):
            space.restart(pairs.spanning(max(k, basis // 6)), seed=seed + space.products)
    outcome = CONVERGED if done or space.exhausted else f"budget of {budget} products reached"
    method = f"block Arnoldi, block {width}, basis up to {basis}, residual times condition"

    def result(values: Tensor, errors: Tensor) -> Result:
        found = Result(
            values=values,
            errors=errors + space.noise[:, None],
            label=Label.ESTIMATE,
            method=method,
            products=space.products,
            outcome=outcome,
        )
        return blank(found, space.bad)

    return OuterEigenvalues(by_magnitude=result(*picks[0][:2]), by_real_part=result(*picks[1][:2]))


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


class _ArnoldiSpace:
    """The growing basis V, its images J V, and what follows from them."""

    def __init__(self, operator: LinearOperator, block: Tensor) -> None:
        self.operator, self.next = operator, block
        self.basis = self.images = block[:, :, :0]
        self.bad = torch.zeros(operator.samples, dtype=torch.bool, device=block.device)
        self.norm = torch.zeros(operator.samples, dtype=torch.float64, device=block.device)
        self.products = 0
        self.exhausted = False

    @property
    def noise(self) -> Tensor:
        return 16 * rounding_of(self.operator) * self.norm

    def expand(self) -> None:
        """One push of a block."""
        image = self.operator.matmat(self.next)
        self.bad = self.bad | non_finite_samples(image)
        image = image.masked_fill(self.bad[:, None, None], 0.0)
        self.norm = torch.maximum(self.norm, image.double().norm(dim=1).amax(dim=1))
        self.basis = torch.cat([self.basis, self.next], dim=2)
        self.images = torch.cat([self.images, image], dim=2)
        self.products += self.next.shape[2]
        fresh, _ = extend(self.basis, image, scale=self.norm)
        self.next = complete(self.basis, fresh, seed=self.products)
        self.exhausted = not bool((self.next[~self.bad] != 0).any())

    def ritz(self) -> _RitzPairs:
        system = eigensystem(self.basis.mT @ self.images)
        values, vectors = system.values, system.vectors
        dtype = self.basis.dtype
        wrong = [self.images @ part.to(dtype) for part in (vectors.real, vectors.imag)]
        shifted = vectors * values[:, None, :]
        wrong = [
            image - self.basis @ part.to(dtype) for image, part in zip(wrong, (shifted.real, shifted.imag), strict=True)
        ]
        residuals = (wrong[0].double().square() + wrong[1].double().square()).sum(dim=1).sqrt()
        # A zero column of the basis is no direction; its Ritz vector lives on that column alone.
        weight = torch.einsum("sj,sjk->sk", (self.basis != 0).any(dim=1).double(), vectors.abs().square())
        errors = torch.where(residuals > 0, residuals * system.conditions, 0.0)
        return _RitzPairs(values=values, errors=errors, vectors=vectors, present=weight > 0.5)

    def restart(self, wanted: Tensor, *, seed: int) -> None:
        """Keep the real span of the wanted Ritz vectors, whose images are known, and expand from there."""
        parts = torch.cat([wanted.real, wanted.imag], dim=2)
        kept, _ = extend(None, parts)
        kept = kept[:, :, (kept != 0).any(dim=1).any(dim=0)].to(self.basis.dtype)
        self.basis, self.images = self.basis @ kept, self.images @ kept
        self.next = complete(self.basis, extend(self.basis, self.next)[0], seed=seed)
