"""Exact spectra of small matrices: float64 LAPACK, with what rounding may have done.

The twin of every matrix-free estimator. `errors` is max(rows, cols) * eps * sigma_max with the eps of
the matrix's own dtype: the entries are no better than that, whatever LAPACK does in float64.

References:
    Golub & Van Loan (2013), Matrix Computations, ch. 2, 5, 7; Soderlind (2006), BIT 46.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dynstab.core.estimate import Label
from dynstab.estimators.eigen import eigensystem
from dynstab.estimators.result import Result, blank, non_finite_samples, rounding
from dynstab.linear.operator import DenseOperator, LinearOperator

DENSE_LIMIT = 512
"""The larger side up to which dense algebra beats matrix-free estimators; the caller decides."""

SINGULAR_TO_ROUNDING = "singular to rounding for some input: sum of ln(sigma + rounding)"


@dataclass(frozen=True, kw_only=True)
class DenseSpectrum:
    """All that one singular value decomposition tells, each for (samples, ...).

    Attributes:
        singular_values: all min(rows, cols), descending.
        smallest_nonzero: (samples, 1), the smallest above max(rows, cols) * eps * sigma_max; 0 for a zero matrix.
        nullity: (samples, 1), cols minus the numerical rank.
        frobenius_squared: (samples, 1).
        log_determinant: (samples, 1), ln |det J|; None unless square. See `_log_determinant`: -inf where the matrix
            as stored is singular, an upper bound where it only is to the rounding of its dtype.
    """

    singular_values: Result
    smallest_nonzero: Result
    nullity: Result
    frobenius_squared: Result
    log_determinant: Result | None


def matrices_of(operator: LinearOperator) -> Tensor:
    """The matrices themselves, (samples, rows, cols), for min(rows, cols) products each."""
    # Leaves may give `dense` in a shape for people; the base class's is the one meant here.
    return operator.matrices if isinstance(operator, DenseOperator) else LinearOperator.dense(operator)


def dense_spectrum(matrices: Tensor, *, products: int = 0) -> DenseSpectrum:
    """Singular values, rank and determinant of (samples, rows, cols); `products` is what the matrices cost."""
    clean, bad = _clean(matrices)
    rows, cols = clean.shape[1:]
    values = torch.linalg.svdvals(clean)
    error = _rounding(matrices, values[:, :1])

    def exact(numbers: Tensor, errors: Tensor) -> Result:
        found = Result(values=numbers, errors=errors, label=Label.EXACT, method="dense SVD", products=products)
        return blank(found, bad)

    nonzero = values > error
    rank = nonzero.sum(dim=1, keepdim=True)
    smallest = values.gather(1, (rank - 1).clamp(min=0)).where(rank > 0, 0.0)
    square_error = 2 * error * values[:, :1] * min(rows, cols) ** 0.5
    return DenseSpectrum(
        singular_values=exact(values, error.expand_as(values)),
        smallest_nonzero=exact(smallest, error),
        nullity=exact((cols - rank).double(), torch.zeros_like(error)),
        frobenius_squared=exact(values.square().sum(dim=1, keepdim=True), square_error),
        log_determinant=blank(_log_determinant(clean, values, error, products), bad) if rows == cols else None,
    )


def eigenvalues(matrices: Tensor, *, products: int = 0) -> Result:
    """All eigenvalues of (samples, d, d), complex128, by descending modulus.

    The error of each is the rounding times its condition number, and at most that of a defective
    eigenvalue of full order, (d eps)^(1/d) * ||A||.
    """
    clean, bad = _clean(matrices)
    system = eigensystem(clean)
    size = torch.linalg.matrix_norm(clean)[:, None]
    relative = rounding(matrices.dtype, *clean.shape[1:])
    worst = relative ** (1 / max(1, clean.shape[1])) * size
    errors = torch.minimum(relative * torch.where(size > 0, size * system.conditions, 0.0), worst)
    order = system.values.abs().argsort(dim=1, descending=True)
    result = Result(
        values=system.values.gather(1, order),
        errors=errors.gather(1, order),
        label=Label.EXACT,
        method="dense eigenvalues",
        products=products,
    )
    return blank(result, bad)


def spectral_radius(eigenvalues: Result) -> Result:
    """max |lambda|, (samples, 1), of all eigenvalues."""
    return _of_largest(eigenvalues, eigenvalues.values.abs(), 0.0)


def spectral_abscissa(eigenvalues: Result, *, identity: float = 1.0) -> Result:
    """max Re lambda(J) - identity, (samples, 1), of all eigenvalues."""
    return _of_largest(eigenvalues, eigenvalues.values.real, identity)


def logarithmic_norm(matrices: Tensor, *, identity: float = 1.0, products: int = 0) -> Result:
    """mu_2(J - identity * I) = lambda_max((J + J^T)/2) - identity, (samples, 1)."""
    ends = symmetric_extremes(matrices, products=products)
    top = ends.column(0)
    return top.with_values(top.values - identity, top.errors)


def symmetric_extremes(matrices: Tensor, *, products: int = 0) -> Result:
    """lambda_max and lambda_min of (J + J^T)/2: (samples, 2)."""
    clean, bad = _clean(matrices)
    values = torch.linalg.eigvalsh((clean + clean.mT) / 2)
    ends = values[:, [-1, 0]]
    error = _rounding(matrices, ends.abs().amax(dim=1, keepdim=True))
    result = Result(
        values=ends,
        errors=error.expand_as(ends),
        label=Label.EXACT,
        method="dense symmetric eigenvalues",
        products=products,
    )
    return blank(result, bad)


def _clean(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Float64 on the CPU or the device, samples that are not finite set to zero, and which those are."""
    bad = non_finite_samples(matrices)
    return matrices.double().masked_fill(bad[:, None, None], 0.0), bad


def _rounding(matrices: Tensor, size: Tensor) -> Tensor:
    return rounding(matrices.dtype, *matrices.shape[1:]) * size


def _log_determinant(clean: Tensor, values: Tensor, error: Tensor, products: int) -> Result:
    """ln |det| of square matrices, exact but where a singular value lies below the rounding of their dtype.

    -inf, exact, where one is zero to float64: then the matrix as stored is singular, as a dead unit makes it. One
    that is small but not zero may be all rounding, so that |det| is known from above alone: each singular value is
    off by `error` at most (Weyl), and the sum of ln(sigma + error) is the bound, at every regular input.
    """
    zero = values <= rounding(torch.float64, *clean.shape[1:]) * values[:, :1]
    singular = zero.any(dim=1, keepdim=True)
    doubtful = (values <= error).any(dim=1, keepdim=True) & ~singular
    if bool(doubtful.any()):
        bound = (values + error).log().sum(dim=1, keepdim=True).where(~singular, -torch.inf)
        label, method, log, doubt = Label.UPPER, f"dense SVD, {SINGULAR_TO_ROUNDING}", bound, torch.zeros_like(bound)
    else:
        # LAPACK complains aloud about singular matrices; theirs is known already.
        regular = clean.where(~singular[:, :, None], torch.eye(clean.shape[1], dtype=clean.dtype, device=clean.device))
        log = torch.linalg.slogdet(regular).logabsdet[:, None].where(~singular, -torch.inf)
        doubt = -torch.log1p(-error / values).sum(dim=1, keepdim=True).where(~singular, 0.0)
        label, method = Label.EXACT, "dense LU"
    return Result(values=log, errors=doubt, label=label, method=method, products=products)


def _of_largest(eigenvalues: Result, key: Tensor, shift: float) -> Result:
    largest = key.nan_to_num(nan=-torch.inf).argmax(dim=1, keepdim=True)
    return eigenvalues.with_values(key.gather(1, largest) - shift, eigenvalues.errors.gather(1, largest))
