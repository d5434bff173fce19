"""The symmetric part of an operator: its extreme eigenvalues and the logarithmic norm, by block Lanczos.

S = (J + J^T)/2 costs one push and one pull a column. With an orthonormal basis V the Ritz values of
V^T S V lie inside the spectrum of S: the largest is a lower bound of lambda_max, the smallest an upper
bound of lambda_min, and an eigenvalue lies within the residual ||S v - theta v|| of each.

The logarithmic norm is mu_2(A) = lambda_max((A + A^T)/2); for a residual step h -> h + f(h) the
vector field has the Jacobian A = J - I, so mu_2(A) = lambda_max(S) - 1.

References:
    Golub & Underwood (1977), Mathematical Software III; Soderlind (2006), BIT 46.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from dynstab.core.estimate import CONVERGED, Label
from dynstab.estimators.adapters import workable
from dynstab.estimators.krylov import KrylovSpace
from dynstab.estimators.result import Result, blank
from dynstab.linear.operator import LinearOperator


@dataclass(frozen=True, kw_only=True)
class SymmetricExtremes:
    """Both ends of the spectrum of (J + J^T)/2, (samples, 1) each; one run found both."""

    largest: Result
    smallest: Result


def symmetric_extremes(
    operator: LinearOperator, *, rtol: float = 1e-2, budget: int = 400, block: int = 8, seed: int = 0
) -> SymmetricExtremes:
    """lambda_max and lambda_min of the symmetric part, each within its residual of an eigenvalue.

    Args:
        rtol: stop once both residuals are below rtol times the spectral range seen.
        budget: of products per sample.

    Raises:
        ValueError: the operator is not square.
    """
    need_square(operator)
    operator, width = workable(operator), min(block, operator.cols)
    space = KrylovSpace(operator, partial(symmetric_part, operator), cost=2, width=width, seed=seed)
    while True:
        space.expand()
        ends, residuals = _extremes(space)
        tolerance = rtol * (ends[:, 0] - ends[:, 1]) + space.noise
        done = bool((residuals <= tolerance[:, None])[~space.bad].all())
        if done or space.exhausted or space.products + 2 * width > budget:
            break
    both = Result(
        values=ends,
        errors=residuals + space.noise[:, None],
        label=Label.CERTIFIED,
        method=f"block Lanczos on (J + J^T)/2, block {width}, basis {space.basis.shape[2]}",
        products=space.products,
        outcome=CONVERGED if done or space.exhausted else f"budget of {budget} products reached",
    )
    both = blank(both, space.bad)
    return SymmetricExtremes(largest=both.column(0), smallest=both.column(1))


def logarithmic_norm(operator: LinearOperator, *, identity: float = 1.0, **options: float) -> Result:
    """mu_2(J - identity * I), (samples, 1); `identity` is 1 for a residual step, 0 for a vector field itself.

    Takes the options of `symmetric_extremes`.
    """
    largest = symmetric_extremes(operator, **options).largest  # pyright: ignore[reportArgumentType]
    return largest.with_values(largest.values - identity, largest.errors)


def _extremes(space: KrylovSpace) -> tuple[Tensor, Tensor]:
    """The largest and the smallest Ritz value, (samples, 2) float64, and their residuals."""
    projected = (space.basis.mT @ space.images).double()
    # A zero column of the basis is no direction: park its eigenvalue inside the spectrum.
    missing = (space.basis == 0).all(dim=1).double()
    projected = projected + torch.diag_embed(missing * projected[:, :1, 0])
    values, vectors = torch.linalg.eigh((projected + projected.mT) / 2)
    ends, inside = values[:, [-1, 0]], vectors[:, :, [-1, 0]].to(space.basis.dtype)
    wrong = space.images @ inside - (space.basis @ inside) * ends[:, None, :].to(space.basis.dtype)
    return ends, wrong.double().norm(dim=1)


def symmetric_part(operator: LinearOperator, columns: Tensor) -> Tensor:
    """(J + J^T) X / 2 for columns (samples, size, k)."""
    return (operator.matmat(columns) + operator.rmatmat(columns)) / 2


def need_square(operator: LinearOperator) -> None:
    """Raises ValueError where the symmetric part does not exist."""
    if not operator.square:
        raise ValueError(f"the symmetric part needs a square operator, got {operator.rows} x {operator.cols}")
