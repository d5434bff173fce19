"""The exponents of a walk along a sequence as they are reported, and what follows from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import hypot, inf, isfinite, isnan

import torch
from torch import Tensor

from dynstab.core.estimate import Estimate, Label
from dynstab.estimators.dimension import expansion_sum, kaplan_yorke_dimension
from dynstab.estimators.qr_result import QRExponents
from dynstab.measures.aggregate import summarise
from dynstab.measures.survey import Survey
from dynstab.measures.time_errors import errors_of_means

_UNIT = "nat/step"
_RUNNING = 60
_SHOWN = 3
_EPS = 4  # by which rounding may move an exponent, in a step


def exponents_of(
    survey: Survey, found: QRExponents, discarded: int, back: QRExponents | None = None
) -> dict[str, object]:
    """The fields of `lyapunov`; `back` is a frame that is aligned better, see `errors_of_means`."""
    first, k = survey.trajectory.steps[0].jacobian, survey.config.k
    eps = torch.finfo(first.dtype).eps
    full = found.values.shape[1] == first.cols
    note = f"{found.method}, {discarded} discarded" if discarded else found.method
    result = replace(found, method=note)
    errors = errors_of_means(found, k, eps, back).cpu()
    listed = tuple(
        _with_error(summarise(result.column(i), unit=_UNIT), float(errors[i]))
        for i in range(min(k, found.values.shape[1]))
    )
    dimension_of = partial(kaplan_yorke_dimension, full=full, rounding=_EPS * eps)
    dimensions = torch.tensor([dimension_of(row) for row in found.values], dtype=torch.float64)
    entropies = torch.tensor([expansion_sum(row) for row in found.values], dtype=torch.float64)
    none, means = torch.zeros(len(found.values), 1, dtype=torch.float64), found.values.mean(dim=0).cpu()
    entropy = summarise(result.with_values(entropies[:, None], none), unit=_UNIT)
    entropy = _with_error(entropy, float(errors[(found.values > 0).any(dim=0).cpu()].sum()))
    if not full and bool((found.values[:, -1] > 0).any()):
        entropy = entropy.model_copy(update={"label": Label.LOWER})
    fields: dict[str, object] = {"qr": listed, "expansion_sum": entropy}
    if bool(dimensions.isnan().any()):
        broken = bool(found.values.isnan().any())
        reason = "a tangent is not finite" if broken else "more exponents than were asked for are needed"
        fields["kaplan_yorke_dimension"] = Estimate.unmeasured(reason)
    else:
        dimension = summarise(result.with_values(dimensions[:, None], none))
        dimension = _with_error(dimension, _half_range(dimension_of, means, errors))
        fields["kaplan_yorke_dimension"] = dimension.model_copy(update={"method": f"Kaplan-Yorke from {note}"})
    if full and survey.trajectory.whole is not None:
        total = found.logs.sum(dim=2).sum(dim=1) / sum(found.lengths)
        scatter = found.errors.sum(dim=1, keepdim=True)
        fields["sum"] = _sum(summarise(result.with_values(total[:, None], scatter), unit=_UNIT), eps * first.cols**0.5)
    return fields


def _with_error(estimate: Estimate, error: float) -> Estimate:
    known = isfinite(error) and not isnan(estimate.value or 0.0)
    return estimate.model_copy(update={"error": error if known else None})


def _sum(estimate: Estimate, rounding: float) -> Estimate:
    """With what rounding may do to it in a step; -inf is that for certain."""
    lost = estimate.value == -inf
    return _with_error(estimate, 0.0 if lost else hypot(estimate.error or 0.0, rounding))


def _half_range(dimension_of: Callable[[Tensor], float], values: Tensor, errors: Tensor) -> float:
    """Half of what the dimension changes by from all exponents one error lower to one error higher: nothing while all
    of them are negative, and by whole numbers where one of them may be zero."""
    return (dimension_of(values + errors) - dimension_of(values - errors)) / 2


def running(found: QRExponents, discarded: int) -> dict[str, object]:
    """The leading exponents over the first n steps, at some sixty n, mean over inputs."""
    lengths = torch.tensor(found.lengths, dtype=torch.float64).cumsum(0)
    sums = found.logs[:, :, :_SHOWN].cpu().cumsum(dim=1) / lengths[None, :, None]
    pace = max(1, len(lengths) // _RUNNING)
    chosen = sorted({*range(pace - 1, len(lengths), pace), len(lengths) - 1})
    means = sums.mean(dim=0)[chosen]
    return {
        "running_steps": tuple(discarded + int(lengths[i]) for i in chosen),
        "running": tuple(tuple(row) for row in means.tolist()),
    }
