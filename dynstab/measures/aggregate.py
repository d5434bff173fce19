"""From numbers per input to Estimates: thin layers over `estimators.summary`."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

from dynstab.core.estimate import CONVERGED, Estimate, Label
from dynstab.estimators.result import NON_FINITE, Result
from dynstab.estimators.summary import Mean, to_estimate

_ROUNDING = 64 * torch.finfo(torch.float64).eps


def summarise(result: Result, *, unit: str = "1", mean: Mean = "arithmetic") -> Estimate:
    """`to_estimate`, with an outcome that counts the inputs whose number is NaN or infinite.

    -inf stays: it is the logarithm of zero, which is data, and a mean that is bounded by it from above is -inf.
    """
    estimate = to_estimate(result, unit=unit, mean=mean)
    if estimate.label is Label.UPPER and estimate.value == -inf:
        estimate = estimate.model_copy(update={"label": Label.EXACT})
    bad = int((result.values.isnan() | result.values.isposinf()).any(dim=1).sum())
    if bad and estimate.outcome == CONVERGED:
        outcome = f"{NON_FINITE} in {bad} of {len(result.values)} inputs"
        return estimate.model_copy(update={"outcome": outcome})
    return estimate


def exact(values: Tensor, *, method: str) -> Result:
    """Numbers (samples,) that are known up to the rounding of float64."""
    values = values.double()[:, None]
    return Result(values=values, errors=_ROUNDING * values.abs(), label=Label.EXACT, method=method)


def standard_error(draws: Tensor) -> Tensor:
    """(samples, m) -> (samples, 1): of the mean over the last dimension; NaN for one draw."""
    if draws.shape[1] < 2:
        return torch.full_like(draws, torch.nan)
    return draws.std(dim=1, keepdim=True) / draws.shape[1] ** 0.5
