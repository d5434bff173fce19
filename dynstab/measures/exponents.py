"""Exponents of the whole trajectory, and the singular values of the whole propagator that they come from.

From the dense chain where every Jacobian is formed: all of them, exact whatever the condition. Else the leading
ones: QR of a pushed frame, and Golub-Kahan with forward-backward pairs on the product. Exponents are in nat
per step of the trajectory, with L the number of steps.

References:
    Benettin et al. (1980); Geist, Parlitz & Lauterborn (1990); Kaplan & Yorke (1979).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import exp, inf, isfinite
from sys import float_info

import torch
from torch import Tensor

from dynstab.core.estimate import CONVERGED, Estimate, Label
from dynstab.estimators.dimension import kaplan_yorke_dimension
from dynstab.estimators.finite_time import dense_log_singular_values, exponents, leading_log_singular_values
from dynstab.estimators.qr import qr_exponents
from dynstab.estimators.result import Result
from dynstab.estimators.summary import weakest
from dynstab.linear.operator import DenseOperator, LinearOperator
from dynstab.measures.aggregate import summarise
from dynstab.measures.effort import NEEDS_STANDARD
from dynstab.measures.singular import COPIES
from dynstab.measures.survey import Finding, Survey

_DRAW = 5
_UNIT = "nat/step"


def measure_exponents(survey: Survey) -> Iterator[Finding]:
    """QR and finite-time exponents, their sums, and the singular values of the propagator."""
    steps = survey.spectral.steps
    if not steps:
        return
    formed = [matrix for matrix in survey.spectral_matrices if matrix is not None]
    whole = len(formed) == len(steps)
    operators = [DenseOperator(matrix) for matrix in formed] if whole else [step.jacobian for step in steps]
    length, k = len(steps), survey.config.k

    qr = _qr(operators, None if whole else k, survey.seed(_DRAW))
    yield Finding("lyapunov", 0, {"unit": _UNIT, "qr": _listed(qr, k)})
    logs = dense_log_singular_values(operators) if whole else _sampled(operators, survey)
    if isinstance(logs, str):
        yield Finding("lyapunov", 0, {"expansion_sum": Estimate.unmeasured(logs, unit=_UNIT)})
        yield Finding("network", 0, {"smallest_singular_value": Estimate.unmeasured(logs)})
    else:
        rates = exponents(logs, length)
        yield Finding("lyapunov", 0, {"finite_time": _listed(rates, k), "expansion_sum": _expansion(rates, whole)})
        yield Finding("network", 0, _singular_values(logs, k, whole))
    yield Finding("lyapunov", 0, {"kaplan_yorke_dimension": _kaplan_yorke(survey, qr, whole)})
    yield from _determinant(survey, length)


def _qr(operators: Sequence[LinearOperator], k: int | None, seed: int) -> Result:
    # Formed Jacobians are walked in float64, but a direction is lost where their own dtype loses it.
    floor = 16 * torch.finfo(operators[0].dtype).eps
    precise = [DenseOperator(each.matrices.double()) if isinstance(each, DenseOperator) else each for each in operators]
    found = qr_exponents(precise, k, keep_factors=False, floor=floor, seed=seed)
    smallest = min(min(operator.shape) for operator in operators)
    return found.with_values(found.values[:, :smallest], found.errors[:, :smallest])


def _sampled(operators: Sequence[LinearOperator], survey: Survey) -> Result | str:
    """Leading ln sigma_i of the propagator within the budget, or the reason why not."""
    budget, k = survey.effort.network_products, survey.config.k
    if not budget:
        return NEEDS_STANDARD
    vectors = operators[0].samples * (operators[0].cols + operators[-1].rows) * operators[0].dtype.itemsize
    affordable = min(budget, 2 * (survey.effort.vectors_bytes // max(1, vectors * COPIES)))
    if affordable < 4 * k:
        return f"a basis for {k} singular values of the propagator does not fit into memory"
    # Half of it goes to Golub-Kahan, whose basis must fit; the pairs that may follow need no basis.
    return leading_log_singular_values(operators, k, budget=2 * affordable, seed=survey.seed(_DRAW, 1))


def _listed(rates: Result, k: int) -> tuple[Estimate, ...]:
    return tuple(summarise(rates.column(i), unit=_UNIT) for i in range(min(k, rates.values.shape[1])))


def _expansion(rates: Result, whole: bool) -> Estimate:
    """The sum of the positive exponents; a lower bound where the last one known is still positive."""
    positive = rates.values.clamp(min=0)
    result = rates.with_values(positive.sum(dim=1, keepdim=True), _doubt(rates, positive > 0))
    estimate = summarise(result, unit=_UNIT)
    cut = not whole and bool((rates.values[:, -1] > 0).any())
    return estimate.model_copy(update={"label": Label.LOWER}) if cut else estimate


def _doubt(rates: Result, counted: Tensor) -> Tensor:
    return torch.where(counted, rates.errors, 0.0).sum(dim=1, keepdim=True)


def _singular_values(logs: Result, k: int, whole: bool) -> dict[str, object]:
    """exp of the logarithms: +inf and 0 where they leave the range of float64; the smallest is the last not lost."""
    values = logs.values.exp()
    found = logs.with_values(values, torch.where(values > 0, values * logs.errors, 0.0))
    count = found.values.shape[1]
    largest = tuple(summarise(found.column(i), mean="geometric") for i in range(min(k, count)))
    smallest = Estimate.unmeasured("needs the Jacobians of all steps: a state is too large to form them")
    if whole:
        kept = (logs.values > -torch.inf).sum(dim=1, keepdim=True).sub(1).clamp(min=0)
        smallest = _exponential(logs.with_values(logs.values.gather(1, kept), logs.errors.gather(1, kept)))
    return {"largest_singular_values": largest, "smallest_singular_value": smallest}


def _exponential(logs: Result) -> Estimate:
    """The geometric mean of exp(logs), or the logarithm in words where float64 cannot hold it."""
    mean = float(logs.values.mean())
    if isfinite(mean) and exp(mean) < float_info.min:
        return Estimate.unmeasured(f"below what float64 holds: its logarithm is {mean:.4g}")
    values = logs.values.exp()
    return summarise(logs.with_values(values, torch.where(values > 0, values * logs.errors, 0.0)), mean="geometric")


def _kaplan_yorke(survey: Survey, qr: Result, whole: bool) -> Estimate:
    if survey.trajectory.kind != "time":
        return Estimate.unmeasured("defined for dynamics in time")
    dimensions = torch.tensor([kaplan_yorke_dimension(row, full=whole) for row in qr.values], dtype=torch.float64)
    if not whole and bool(dimensions.isnan().any()):
        return Estimate.unmeasured("more exponents than were asked for are needed")
    estimate = summarise(qr.with_values(dimensions[:, None], torch.full_like(dimensions, torch.nan)[:, None]))
    return estimate.model_copy(update={"method": f"Kaplan-Yorke from {qr.method}"})


def _determinant(survey: Survey, length: int) -> Iterator[Finding]:
    """ln |det| of the propagator from those of the steps."""
    parts = [survey.estimate("step", index, "log_determinant") for index in range(length)]
    known = [part for part in parts if part is not None and part.value is not None]
    if len(known) < length:
        missing = Estimate.unmeasured("ln |det| of a step was not measured", unit="nat")
        yield Finding("network", 0, {"log_determinant": missing})
        yield Finding("lyapunov", 0, {"sum": missing.model_copy(update={"unit": _UNIT})})
        return
    failed = [part.outcome for part in known if part.outcome != CONVERGED]
    value, error = sum(part.value or 0.0 for part in known), sum(part.error or 0.0 for part in known)
    label = weakest(*(part.label for part in known))
    method = next((part.method for part in known if part.label is label), known[0].method)
    if label is Label.UPPER:  # exact parts of a bound count with their errors; and a bound of -inf is the number
        value, error, label = value + error, 0.0, Label.EXACT if value == -inf else label
    total = Estimate(
        value=value,
        error=error,
        unit="nat",
        method=f"sum over {length} steps, {method}",
        label=label,
        outcome=failed[0] if failed else CONVERGED,
        products=sum(part.products for part in known),
        samples=known[0].samples,
    )
    yield Finding("network", 0, {"log_determinant": total})
    rate = {"value": (total.value or 0.0) / length, "error": (total.error or 0.0) / length, "unit": _UNIT}
    yield Finding("lyapunov", 0, {"sum": total.model_copy(update=rate)})
