"""Singular values of every step: all of them where the Jacobian is formed, the leading ones elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

from dynstab.core.estimate import Estimate
from dynstab.estimators.dense import DenseSpectrum, dense_spectrum
from dynstab.estimators.golub_kahan import SingularTriplets, largest_singular_values
from dynstab.estimators.result import Result
from dynstab.linear.operator import LinearOperator
from dynstab.measures.aggregate import summarise
from dynstab.measures.effort import NEEDS_STANDARD, Effort
from dynstab.measures.survey import Finding, Survey

_DRAW = 3
# Narrow blocks reach deepest for a budget; multiple singular values are found all the same.
_BLOCK = 4
# A basis is copied when it grows, and blocks are projected out of it.
COPIES = 3
NOT_FORMED = "needs the Jacobian formed: it is too large"
NOT_SQUARE = "the step changes the size of the state"
_NO_DETERMINANT = Estimate.unmeasured(NOT_SQUARE, unit="nat")


def measure_singular_values(survey: Survey) -> Iterator[Finding]:
    """The leading singular values, the smallest nonzero one, nullity and ln |det| of every step."""
    for step in survey.spectral.steps:
        matrix = survey.spectral_matrices[step.index]
        k = survey.config.k
        if matrix is None:
            found = leading_triplets(
                step.jacobian,
                k,
                budget=survey.effort.singular_products,
                effort=survey.effort,
                seed=survey.seed(_DRAW, step.index),
            )
            fields = _leading(step.jacobian, found)
        else:
            spectrum = dense_spectrum(matrix, products=min(matrix.shape[1:]))
            found, fields = spectrum.singular_values, _all(spectrum, k)
        if not isinstance(found, str):
            survey.norms[step.index] = found.column(0)
        yield Finding("step", step.index, fields)


def _all(spectrum: DenseSpectrum, k: int) -> dict[str, object]:
    values = spectrum.singular_values
    leading = tuple(summarise(values.column(i)) for i in range(min(k, values.values.shape[1])))
    determinant = spectrum.log_determinant
    return {
        "singular_values": leading,
        "largest_singular_value": leading[0],
        "smallest_singular_value": summarise(spectrum.smallest_nonzero),
        "nullity": summarise(spectrum.nullity),
        "log_determinant": _NO_DETERMINANT if determinant is None else summarise(determinant, unit="nat"),
    }


def _leading(operator: LinearOperator, found: Result | str) -> dict[str, object]:
    small = Estimate.unmeasured(NOT_FORMED)
    fields: dict[str, object] = {
        "smallest_singular_value": small,
        "nullity": small,
        "log_determinant": Estimate.unmeasured(NOT_FORMED, unit="nat") if operator.square else _NO_DETERMINANT,
    }
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
    affordable = min(budget, 2 * (effort.vectors_bytes // max(1, pair)))
    if affordable < 2 * max(k, _BLOCK):
        return f"a basis for {k} singular values of {operator.rows} x {operator.cols} does not fit into memory"
    return largest_singular_values(operator, k, budget=affordable, block=_BLOCK, seed=seed)
