"""Which law the gradient follows along depth: exponential, stretched, or a power.

Plain networks grow or shrink exponentially; residual ones often only as exp(c sqrt(l)) or as a power
of l, which is not a matter for alarm at any depth in use.

References:
    Yang & Schoenholz (2017), Mean Field Residual Networks: On the Edge of Chaos.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dynstab.core.measurements import GrowthFit

LEAST_STATES = 6
LEAST_GAIN = 1.0
# The better law must leave less than this share of the squares that the next one leaves.
_CLEARLY = 0.5
# ... and less than this share of the squares that the mean alone leaves.
_EXPLAINS = 0.1


def fit_growth(log_gain: Tensor) -> GrowthFit | None:
    """Fit ln gain = b - a f(l) over the states l = 0 ... L with f = l, sqrt(l), ln(1 + l).

    Args:
        log_gain: (states,), ln of the relative gradient gain from the last state to each, in nat.

    Returns:
        None where fewer than six values are finite. The law is "none" where the whole profile
        spans less than 1 nat, where no law explains nine tenths of the variance, or where the best is not twice
        as good as the next.
    """
    kept = log_gain.isfinite()
    if int(kept.sum()) < LEAST_STATES:
        return None
    depth = torch.arange(len(log_gain), dtype=torch.float64)[kept]
    profile = log_gain.double()[kept]
    features = {"exponential": depth, "square-root": depth.sqrt(), "logarithmic": depth.log1p()}
    fits = {law: _line(feature, profile) for law, feature in features.items()}
    errors = {law: error for law, (_, error) in fits.items()}
    return GrowthFit(law=_decide(profile, errors), rate=-fits["exponential"][0], errors=errors)


def _line(feature: Tensor, profile: Tensor) -> tuple[float, float]:
    """Slope and residual sum of squares of the least-squares line."""
    x, y = feature - feature.mean(), profile - profile.mean()
    slope = (x @ y) / (x @ x)
    return float(slope), float((y - slope * x).square().sum())


def _decide(profile: Tensor, errors: dict[str, float]) -> str:
    total = float((profile - profile.mean()).square().sum())
    best, second = sorted(errors, key=errors.__getitem__)[:2]
    if float(profile.max() - profile.min()) < LEAST_GAIN or errors[best] > _EXPLAINS * total:
        return "none"
    return best if errors[best] < _CLEARLY * errors[second] else "none"
