"""Singular values of every step: all of them where the Jacobian is formed, the leading ones elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dynstab.core.estimate import Estimate
from dynstab.estimators.dense import DenseSpectrum, dense_spectrum
from dynstab.estimators.golub_kahan import SingularTriplets, largest_singular_values
from dynstab.linear.operator import LinearOperator
from dynstab.measures.aggregate import summarise
from dynstab.measures.effort import NEEDS_STANDARD, Effort
from dynstab.measures.survey import Finding, Survey

_DRAW = 3
_BLOCK = 8
# A basis is copied when it grows, and blocks are projected out of it.
COPIES = 3
SMALL_ONLY = "needs the Jacobian formed: it is too large"


def measure_singular_values(survey: Survey) -> Iterator[Finding]:
    """The leading singular values, the smallest nonzero one, nullity and ln |det| of every step."""
    for step in survey.spectral.steps:
        matrix = survey.spectral_matrices[step.index]
        k = survey.config.k
        if matrix is None:
            fields = _leading(step.jacobian, k, survey.effort, survey.seed(_DRAW, step.index))
        else:
            fields = _all(matrix, k, square=step.jacobian.square)
        yield Finding("step", step.index, fields)


def _all(matrix: Tensor, k: int, *, square: bool) -> dict[str, object]:
    spectrum = dense_spectrum(matrix, products=min(matrix.shape[1:]))
    values = spectrum.singular_values
    leading = tuple(summarise(values.column(i)) for i in range(min(k, values.values.shape[1])))
    return {
        "singular_values": leading,
        "largest_singular_value": leading[0],
        "smallest_singular_value": summarise(spectrum.smallest_nonzero),
        "nullity": summarise(spectrum.nullity),
        "log_determinant": _log_determinant(spectrum, square),
    }


def _log_determinant(spectrum: DenseSpectrum, square: bool) -> Estimate:
    if spectrum.log_determinant is None or not square:
        return Estimate.unmeasured("the step changes the size of the state", unit="nat")
    return summarise(spectrum.log_determinant, unit="nat")


def _leading(operator: LinearOperator, k: int, effort: Effort, seed: int) -> dict[str, object]:
    found = leading_triplets(operator, k, budget=effort.singular_products, effort=effort, seed=seed)
    small = Estimate.unmeasured(SMALL_ONLY)
    fields: dict[str, object] = {"smallest_singular_value": small, "nullity": small}
    if operator.square:
        fields["log_determinant"] = Estimate.unmeasured(SMALL_ONLY, unit="nat")
    else:
        fields["log_determinant"] = Estimate.unmeasured("the step changes the size of the state", unit="nat")
    if isinstance(found, str):
        return fields | {"largest_singular_value": Estimate.unmeasured(found)}
    values = tuple(summarise(found.column(i)) for i in range(found.values.shape[1]))
    return fields | {"singular_values": values, "largest_singular_value": values[0]}


def leading_triplets(
    operator: LinearOperator, k: int, *, budget: int, effort: Effort, seed: int
) -> SingularTriplets | str:
    """Block Golub-Kahan within the budget and the memory, or the reason why not."""
    if not budget:
        return NEEDS_STANDARD
    pair = operator.samples * (operator.rows + operator.cols) * operator.dtype.itemsize * COPIES
    block = min(max(_BLOCK, k), 16)
    affordable = min(budget, 2 * (effort.vectors_bytes // max(1, pair)))
    if affordable < 2 * k:
        return f"a basis for {k} singular values of {operator.rows} x {operator.cols} does not fit into memory"
    with torch.no_grad():
        return largest_singular_values(operator, k, budget=affordable, block=min(block, affordable // 2), seed=seed)
