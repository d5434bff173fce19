"""Leading singular triplets, matrix-free: block Golub-Kahan with full reorthogonalisation.

From an orthonormal block V_1 the recurrence J V_j = U_j A_j + ..., J^T U_j = V_{j+1} B_{j+1} + ...
builds orthonormal U, V with J V = U T and J^T U = V T^T + V_next R E_last^T. With T = P S Q^T the Ritz
triplets are (U P, S, V Q), and since J v = s u holds exactly, all that is wrong with one of them is
the residual ||J^T u - s v|| = ||R p_last||.

What may be concluded: the i-th Ritz value is never above sigma_i (Cauchy interlacing), and a
singular value lies within the residual of it. None of this says that no larger one was missed.

References:
    Golub, Luk & Overton (1981), ACM TOMS 7; Simon & Zha (2000), SIAM J. Sci. Comput. 21.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dynstab.core.estimate import CONVERGED, Label
from dynstab.estimators.adapters import Transposed, rounding_of, workable
from dynstab.estimators.orthogonal import complete, extend, random_frame
from dynstab.estimators.result import Result, blank, non_finite_samples
from dynstab.linear.operator import LinearOperator


@dataclass(frozen=True, kw_only=True)
class SingularTriplets(Result):
    """Singular values with their vectors.

    Attributes:
        left, right: (samples, rows, k) and (samples, cols, k), unit columns in the operator's dtype;
            zero columns where the operator has no further direction.
    """

    left: Tensor
    right: Tensor


def largest_singular_values(
    operator: LinearOperator,
    k: int = 8,
    *,
    rtol: float = 1e-2,
    budget: int = 400,
    block: int | None = None,
    start: Tensor | None = None,
    seed: int = 0,
) -> SingularTriplets:
    """The `k` leading singular triplets, descending; fewer where the matrix is smaller.

    Args:
        rtol: stop once every residual is below rtol * sigma_i. The error of a Ritz value that is apart
            from its neighbours is about the square of that.
        budget: of products per sample; the run ends at the first block that would pass it.
        block: columns at a time, between 8 and 16 by default.
        start: (samples, cols, j) columns of a first guess, completed by random ones.
    """
    operator, k = workable(operator), min(k, *operator.shape)
    width = min(block or min(max(8, k), 16), operator.cols)
    space = _KrylovPair(operator, _first_block(operator, width, start, seed))
    while True:
        space.expand()
        values, residuals, ritz = space.triplets()
        done = values.shape[1] >= k and bool((residuals <= rtol * values + space.noise[:, None])[:, :k].all())
        if done or space.exhausted or space.products + 2 * width > budget:
            break
    left, right = space.vectors(ritz, k)
    result = SingularTriplets(
        values=_pad(values, k),
        errors=_pad(residuals, k) + space.noise[:, None],
        label=Label.CERTIFIED,
        method=f"block Golub-Kahan, block {width}, basis {space.size}",
        products=space.products,
        outcome=CONVERGED if done or space.exhausted else f"budget of {budget} products reached",
        left=left,
        right=right,
    )
    return _as_triplets(blank(result, space.bad), result)


def smallest_singular_values(
    operator: LinearOperator, k: int = 1, *, rtol: float = 1e-2, budget: int = 400, seed: int = 0
) -> Result:
    """Upper bounds of the `k` smallest singular values of min(rows, cols), ascending.

    The smallest Ritz values of Golub-Kahan converge from above, and slowly where J is ill-conditioned:
    0.19 was seen for a true 5e-10. So the label is UPPER; `errors` holds the residual (a
    singular value does lie that near), and the outcome says whether it is below rtol * value. Only where
    the basis came to fill the space is it CERTIFIED.
    """
    operator, k = workable(operator), min(k, *operator.shape)
    tall = operator if operator.rows >= operator.cols else Transposed(operator)
    width = min(max(8, k), 16, tall.cols)
    space = _KrylovPair(tall, _first_block(tall, width, None, seed))
    while True:
        space.expand()
        values, residuals, _ = space.triplets()
        # Zero columns of the basis come out as the last Ritz values: step over them.
        last = (space.rank[:, None] - 1 - torch.arange(k, device=values.device)).clamp(min=0)
        found, errors = values.gather(1, last), residuals.gather(1, last)
        done = bool((errors <= rtol * found + space.noise[:, None])[~space.bad].all())
        if done or space.exhausted or space.products + 2 * width > budget:
            break
    result = Result(
        values=found,
        errors=errors + space.noise[:, None],
        label=Label.CERTIFIED if space.exhausted else Label.UPPER,
        method=f"block Golub-Kahan from above, block {width}, basis {space.size}",
        products=space.products,
        outcome=CONVERGED if done or space.exhausted else f"upper bound only: budget of {budget} products reached",
    )
    return blank(result, space.bad)


class _KrylovPair:
    """The growing bases U, V and the projected matrix T = U^T J V."""

    def __init__(self, operator: LinearOperator, block: Tensor) -> None:
        self.operator = operator
        self.next = block
        self.right = block[:, :, :0]
        self.left = block.new_zeros(operator.samples, operator.rows, 0)
        self.projected = torch.zeros(operator.samples, 0, 0, dtype=torch.float64, device=block.device)
        self.bad = torch.zeros(operator.samples, dtype=torch.bool, device=block.device)
        self.norm = torch.zeros(operator.samples, dtype=torch.float64, device=block.device)
        self.products = 0
        self.exhausted = False
        self.leftover = torch.zeros(0)

    @property
    def size(self) -> int:
        return self.right.shape[2]

    @property
    def rank(self) -> Tensor:
        """(samples,): of the right basis; its zero columns stand for no direction."""
        return (self.right != 0).any(dim=1).sum(dim=1)

    @property
    def noise(self) -> Tensor:
        """(samples,): what rounding does to a singular value."""
        return 16 * rounding_of(self.operator) * self.norm

    def expand(self) -> None:
        """One push and one pull of a block."""
        block = self.next
        image = self._clean(self.operator.matmat(block))
        self.norm = torch.maximum(self.norm, image.double().norm(dim=1).amax(dim=1))
        fresh, _ = extend(self.left, image, scale=self.norm)
        old = self.size
        self.left = torch.cat([self.left, fresh], dim=2)
        self.right = torch.cat([self.right, block], dim=2)
        grown = torch.nn.functional.pad(self.projected, (0, block.shape[2], 0, fresh.shape[2]))
        grown[:, :, old:] = (self.left.mT @ image).double()
        self.projected = grown

        pulled = self._clean(self.operator.rmatmat(fresh))
        self.norm = torch.maximum(self.norm, pulled.double().norm(dim=1).amax(dim=1))
        self.leftover = (pulled - self.right @ (self.right.mT @ pulled)).double()
        fresh, _ = extend(self.right, pulled, scale=self.norm)
        # An invariant subspace need not hold the leading triplets: go on from new random directions.
        self.next = complete(self.right, fresh, seed=self.size)
        self.products += 2 * block.shape[2]
        self.exhausted = not bool((self.next[~self.bad] != 0).any())

    def triplets(self) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Ritz values (descending), their residuals and the coefficients of their vectors, float64."""
        p, values, qt = torch.linalg.svd(self.projected)
        last = p[:, -self.leftover.shape[2] :, :]
        residuals = (self.leftover @ last).norm(dim=1)
        return values, residuals, (p, qt.mT)

    def vectors(self, ritz: tuple[Tensor, Tensor], k: int) -> tuple[Tensor, Tensor]:
        p, q = ritz
        dtype = self.left.dtype
        return self.left @ p[:, :, :k].to(dtype), self.right @ q[:, :, :k].to(dtype)

    def _clean(self, block: Tensor) -> Tensor:
        bad = non_finite_samples(block)
        self.bad = self.bad | bad
        return block.masked_fill(self.bad[:, None, None], 0.0)


def _first_block(operator: LinearOperator, width: int, start: Tensor | None, seed: int) -> Tensor:
    if start is None:
        return random_frame(
            operator.samples, operator.cols, width, seed=seed, dtype=operator.dtype, device=operator.device
        )
    guess = start[:, :, :width].to(dtype=operator.dtype, device=operator.device)
    padded = torch.nn.functional.pad(guess, (0, width - guess.shape[2]))
    return complete(None, extend(None, padded)[0], seed=seed)


def _pad(values: Tensor, k: int) -> Tensor:
    return torch.nn.functional.pad(values[:, :k], (0, max(0, k - values.shape[1])))


def _as_triplets(blanked: Result, triplets: SingularTriplets) -> SingularTriplets:
    return SingularTriplets(**{**vars(triplets), **vars(blanked)})
