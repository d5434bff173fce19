"""The squared Frobenius norm from random probes.

E ||J z||^2 = ||J||_F^2 for isotropic z (E z z^T = I); for m Gaussian probes the relative variance is
2 tr((J^T J)^2) / (m tr(J^T J)^2). Pulls serve as well as pushes: ||J^T||_F = ||J||_F.

References:
    Girard (1989), Numer. Math. 56; Hutchinson (1990), Commun. Stat. Simul. 19.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from dynstab.core.estimate import Label
from dynstab.estimators.orthogonal import gaussian_probes
from dynstab.estimators.result import Result, blank, non_finite_samples
from dynstab.linear.operator import LinearOperator


def frobenius_squared(
    operator: LinearOperator, *, probes: int = 16, side: Literal["push", "pull"] = "pull", seed: int = 0
) -> Result:
    """||J||_F^2, (samples, 1), with one standard error over the probes."""
    size = operator.cols if side == "push" else operator.rows
    noise = gaussian_probes(operator.samples, size, probes, seed=seed, dtype=operator.dtype, device=operator.device)
    images = operator.matmat(noise) if side == "push" else operator.rmatmat(noise)
    return frobenius_from_images(images)


def frobenius_from_images(images: Tensor) -> Result:
    """||J||_F^2 from the images J z of isotropic z with E z z^T = I, columns of (samples, size, m).

    The standard error is the probes' own where m > 1; a single probe has the worst case's, sqrt(2) of the value.
    """
    bad = non_finite_samples(images)
    squares = images.masked_fill(bad[:, None, None], 0.0).double().square().sum(dim=1)
    m = squares.shape[1]
    mean = squares.mean(dim=1, keepdim=True)
    error = squares.std(dim=1, keepdim=True) / m**0.5 if m > 1 else mean * 2**0.5
    result = Result(values=mean, errors=error, label=Label.ESTIMATE, method=f"Hutchinson, {m} probes", products=m)
    return blank(result, bad)


def trace(operator: LinearOperator, *, probes: int = 16, seed: int = 0) -> Result:
    """tr J = sum of the eigenvalues, (samples, 1), from E z^T J z, with one standard error over the probes.

    Raises:
        ValueError: the operator is not square.
    """
    if not operator.square:
        raise ValueError(f"a trace needs a square operator, got {operator.rows} x {operator.cols}")
    noise = gaussian_probes(
        operator.samples, operator.cols, probes, seed=seed, dtype=operator.dtype, device=operator.device
    )
    images = operator.matmat(noise)
    bad = non_finite_samples(images)
    forms = (noise.double() * images.masked_fill(bad[:, None, None], 0.0).double()).sum(dim=1)
    result = Result(
        values=forms.mean(dim=1, keepdim=True),
        errors=forms.std(dim=1, keepdim=True) / probes**0.5 if probes > 1 else torch.full_like(forms, torch.nan),
        label=Label.ESTIMATE,
        method=f"Hutchinson, {probes} probes",
        products=probes,
    )
    return blank(result, bad)
