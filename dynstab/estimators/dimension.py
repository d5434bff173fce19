"""What a Lyapunov spectrum says of an attractor.

References:
    Kaplan & Yorke (1979), Lecture Notes in Math. 730; Pesin (1977), Russ. Math. Surv. 32.
"""

from __future__ import annotations

import torch
from torch import Tensor


def kaplan_yorke_dimension(exponents: Tensor, *, full: bool = True, rounding: float = 0.0) -> float:
    """j + (lambda_1 + ... + lambda_j) / |lambda_{j+1}| with j the last partial sum that is not negative.

    Args:
        exponents: (k,), descending.
        full: whether these are all exponents. If not, and no partial sum is negative, the answer
            lies beyond them: NaN. If they are, it is the dimension of the space.
        rounding: of one exponent. A sum that is negative by no more than rounding is zero: exponents of a
            rotation do not shrink anything.
    """
    if bool(exponents.isnan().any()):
        return torch.nan
    sums = exponents.double().cumsum(0)
    negative = (sums < -rounding * torch.arange(1, len(sums) + 1, device=sums.device)).nonzero()
    if not len(negative):
        return float(len(exponents)) if full else torch.nan
    j = int(negative[0])
    before = float(sums[j - 1]) if j else 0.0
    return j + before / abs(float(exponents[j]))


def expansion_sum(exponents: Tensor) -> float:
    """The sum of the positive exponents; over time an upper bound of the Kolmogorov-Sinai entropy, equal by
    Pesin's formula where the attractor has a smooth measure. NaN where an exponent is."""
    return float(exponents.double().clamp(min=0).sum())
