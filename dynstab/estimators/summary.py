"""Results per sample -> Estimates over the samples."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from dynstab.core.estimate import Estimate, Label
from dynstab.estimators.result import Result

_DECREASING_TRUST = (Label.EXACT, Label.CERTIFIED, Label.PROBABILISTIC, Label.ESTIMATE)
Mean = Literal["arithmetic", "geometric"]


def to_estimates(result: Result, *, unit: str = "1", mean: Mean = "arithmetic") -> tuple[Estimate, ...]:
    """One Estimate for each column of the result; see `to_estimate`."""
    return tuple(to_estimate(result.column(index), unit=unit, mean=mean) for index in range(result.values.shape[1]))


def to_estimate(result: Result, *, unit: str = "1", mean: Mean = "arithmetic") -> Estimate:
    """The mean of a real (samples, 1) result over its samples.

    value   the arithmetic mean of the values, or exp(mean ln value). A NaN in one sample makes it NaN,
            and `outcome` counts such samples; a zero makes a geometric mean 0.
    error   the numerical error of that mean, not the scatter of the samples: the mean of the errors where
            they are bounds, sqrt(sum error^2) / samples where they are standard errors (ESTIMATE); for a
            geometric mean the same of the relative errors, times the value. None where unknown.
    spread  the standard deviation of the values over the samples (n - 1), in the unit of the value; for a
            geometric mean value * sd(ln value). None for one sample or where a value is not finite.
    """
    values, errors = result.values[:, 0].cpu(), result.errors[:, 0].cpu()
    if mean == "geometric":
        center = values.log().mean().exp()
        noise = center * _error_of_mean(errors / values, result.label)
        scatter = center * _spread(values.log())
    else:
        center, noise, scatter = values.mean(), _error_of_mean(errors, result.label), _spread(values)
    return Estimate(
        value=float(center),
        error=_known(noise),
        unit=unit,
        method=result.method,
        label=result.label,
        outcome=result.outcome,
        products=result.products,
        spread=_known(scatter),
        samples=len(values),
    )


def weakest(*labels: Label) -> Label:
    """What may be concluded from a number made of several: the weakest of what its parts allow.

    Bounds from one side with exact parts stay bounds of that side (of a sum, mean or positive product);
    bounds mixed with anything less, or with the other side, are estimates.
    """
    sides = {label for label in labels if label in (Label.LOWER, Label.UPPER)}
    rest = [label for label in labels if label not in sides]
    if not sides:
        return max(rest, key=_DECREASING_TRUST.index)
    return sides.pop() if len(sides) == 1 and set(rest) <= {Label.EXACT} else Label.ESTIMATE


def _error_of_mean(errors: Tensor, label: Label) -> Tensor:
    return errors.norm() / len(errors) if label is Label.ESTIMATE else errors.mean()


def _spread(values: Tensor) -> Tensor:
    return values.std() if len(values) > 1 else torch.tensor(torch.nan)


def _known(number: Tensor) -> float | None:
    return None if bool(number.isnan()) else float(number)
