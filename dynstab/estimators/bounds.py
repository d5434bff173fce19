"""Upper bounds of norms and gains. Power, Lanczos and subspace methods bound from below: not here.

References:
    Halko, Martinsson & Tropp (2011), SIAM Review 53, lemma 4.1; Delattre et al. (2023), ICML (Gram
    iteration); Soderlind (2006), BIT 46 (logarithmic norms).
"""

from __future__ import annotations

from math import pi, sqrt

import torch
from torch import Tensor

from dynstab.core.estimate import CONVERGED, Label
from dynstab.estimators.orthogonal import gaussian_probes
from dynstab.estimators.result import Result, blank, non_finite_samples, rounding
from dynstab.linear.operator import LinearOperator


def randomized_norm_bound(operator: LinearOperator, *, probes: int = 6, seed: int = 0) -> Result:
    """||J|| <= 10 sqrt(2/pi) max_i ||J w_i||, (samples, 1), which fails with probability 10^-probes at most."""
    noise = gaussian_probes(
        operator.samples, operator.cols, probes, seed=seed, dtype=operator.dtype, device=operator.device
    )
    return norm_bound_from_images(operator.matmat(noise))


def norm_bound_from_images(images: Tensor) -> Result:
    """The same bound from images J w (or J^T w) of standard normal w, columns of (samples, size, m).

    It exceeds the norm by a factor of up to 10 sqrt(2 rank / pi): a guarantee, not a measurement.
    """
    bad = non_finite_samples(images)
    m = images.shape[2]
    longest = images.masked_fill(bad[:, None, None], 0.0).double().norm(dim=1).amax(dim=1, keepdim=True)
    result = Result(
        values=10 * sqrt(2 / pi) * longest,
        errors=torch.zeros_like(longest),
        label=Label.PROBABILISTIC,
        method=f"randomized upper bound, {m} Gaussian probes, probability 1 - 1e-{m}",
        products=m,
    )
    return blank(result, bad)


def gram_iteration(matrices: Tensor, *, iterations: int = 6, products: int = 0) -> Result:
    """||A|| <= (tr (A^T A)^p)^(1/2p) with p = 2^iterations, (samples, 1), for matrices (samples, rows, cols).

    Within a factor rank^(1/2p) of the norm. Rescaled at every squaring, so that it cannot overflow;
    raised by the rounding of float64, so that it stays a bound.
    """
    bad = non_finite_samples(matrices)
    clean = matrices.double().masked_fill(bad[:, None, None], 0.0)
    largest = clean.abs().amax(dim=(1, 2))
    first = torch.where(largest > 0, largest, 1.0)
    clean, log_scale = clean / first[:, None, None], torch.zeros_like(first)
    gram = clean.mT @ clean if clean.shape[1] >= clean.shape[2] else clean @ clean.mT
    for _ in range(iterations):
        size = torch.linalg.matrix_norm(gram)
        unit = torch.where(size > 0, size, 1.0)
        gram = gram / unit[:, None, None]
        gram, log_scale = gram @ gram, 2 * (log_scale + unit.log())
    p = 2**iterations
    trace = torch.diagonal(gram, dim1=1, dim2=2).sum(dim=1)
    values = (first * ((trace.log() + log_scale) / (2 * p)).exp())[:, None]
    margin = 1 + 4 * rounding(torch.float64, *matrices.shape[1:])
    result = Result(
        values=values * margin,
        errors=torch.zeros_like(values),
        label=Label.UPPER,
        method=f"Gram iteration, p = {p}",
        products=products,
    )
    return blank(result, bad)


def residual_gain_bounds(
    field: tuple[Result, Result], singular: tuple[Result, Result], *, step: float = 1.0
) -> tuple[Result, Result]:
    """Lower and upper bounds of the gain of I + h A, (samples, 1) each.

        sqrt(1 + 2 h lambda_min(A_s) + h^2 sigma_min(A)^2) <= gain <= sqrt(1 + 2 h mu_2(A) + h^2 ||A||^2)

    The upper one is never above 1 + h ||A||. The lower one may be below 1 - h ||A||: the larger of the
    two is returned, so that the pair is always at least as tight as 1 -+ h ||A||.

    Args:
        field: lambda_min and lambda_max of the symmetric part of A. singular: sigma_min and sigma_max of A.
            An error bound widens the result.
        step: h.

    Returns:
        Results labelled LOWER and UPPER where the parts bound from the right side or are EXACT;
        ESTIMATE where one of them does not (a certified Ritz value may have missed the extreme).
    """
    (low, high), (small, large) = field, singular
    least = step * (small.values - small.errors).clamp(min=0)
    most = step * (large.values + large.errors)
    below = (1 + 2 * step * (low.values - low.errors) + least.square()).clamp(min=0).sqrt()
    above = (1 + 2 * step * (high.values + high.errors) + most.square()).clamp(min=0).sqrt()
    # Without the norm itself from above, 1 - h ||A|| is no bound from below.
    trusted = large.label in (Label.EXACT, Label.UPPER)
    below = torch.maximum(below, 1 - most) if trusted else below
    margin = 8 * torch.finfo(torch.float64).eps
    return (
        _bound(below * (1 - margin), (low, small), Label.LOWER),
        _bound(above * (1 + margin), (high, large), Label.UPPER),
    )


def _bound(values: Tensor, parts: tuple[Result, ...], side: Label) -> Result:
    rigorous = all(part.label in (Label.EXACT, side) for part in parts)
    failed = [part.outcome for part in parts if not part.converged]
    return Result(
        values=values,
        errors=torch.zeros_like(values),
        label=side if rigorous else Label.ESTIMATE,
        method="residual step bound from logarithmic norm and singular values",
        products=sum(part.products for part in parts),
        outcome=failed[0] if failed else CONVERGED,
    )
