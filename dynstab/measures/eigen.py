"""Eigenvalues of every square step, its logarithmic norm where it is residual, and how non-normal it is."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from torch import Tensor

from dynstab.core.estimate import Estimate
from dynstab.estimators import dense
from dynstab.estimators.arnoldi import OuterEigenvalues, outer_eigenvalues
from dynstab.estimators.lanczos import logarithmic_norm
from dynstab.estimators.non_normality import henrici_departure, kreiss_constant, transient_growth
from dynstab.estimators.result import Result
from dynstab.estimators.token_blocks import block_eigenvalues, block_log_determinant
from dynstab.measures.aggregate import summarise
from dynstab.measures.causal_blocks import causal_blocks
from dynstab.measures.effort import NEEDS_STANDARD, NEEDS_THOROUGH, Effort
from dynstab.measures.singular import NOT_FORMED, NOT_SQUARE
from dynstab.measures.survey import Finding, Survey
from dynstab.systems.trajectory import Step

_DRAW = 4
_MOST_LISTED = 128
# Narrow blocks reach deepest for a budget, and the ends of these spectra are where a bulk stops.
_LANCZOS_BLOCK = 1
_ARNOLDI_BLOCK = 2
_THINNED = "of a recurrence some steps are decomposed, not all"
_NOT_RESIDUAL = "not a residual step: there is no vector field"
_SPECTRAL = ("spectral_radius", "spectral_abscissa")
_NON_NORMAL = ("henrici_departure", "kreiss_constant", "transient_growth")


def measure_eigenvalues(survey: Survey) -> Iterator[Finding]:
    """logarithmic_norm, spectral_radius, spectral_abscissa, eigenvalues and the non-normality of every step."""
    for step in survey.spectral.steps:
        matrix = survey.spectral_matrices[step.index]
        if not step.jacobian.square:
            fields = _missing(NOT_SQUARE, "logarithmic_norm", *_SPECTRAL, *_NON_NORMAL)
        elif not survey.decomposes(step.index):
            known = _NOT_RESIDUAL if step.kind != "residual" else _THINNED
            fields = _missing(_THINNED, *_SPECTRAL, *_NON_NORMAL) | _missing(known, "logarithmic_norm")
        elif matrix is not None:
            fields = _dense_fields(step, matrix, survey.effort)
        else:
            fields = _sampled_fields(survey, step)
        yield Finding("step", step.index, fields)


def _missing(reason: str, *names: str) -> dict[str, object]:
    return {name: Estimate.unmeasured(reason) for name in names}


def _dense_fields(step: Step, matrix: Tensor, effort: Effort) -> dict[str, object]:
    products = min(matrix.shape[1:])
    eigenvalues = dense.eigenvalues(matrix, products=products)
    fields = _eigen_fields(step, eigenvalues) | _non_normal_fields(matrix[:1], _first(eigenvalues), effort)
    if step.kind != "residual":
        return fields | _missing(_NOT_RESIDUAL, "logarithmic_norm")
    return fields | {"logarithmic_norm": summarise(dense.logarithmic_norm(matrix, products=products))}


def _eigen_fields(step: Step, eigenvalues: Result) -> dict[str, object]:
    fields: dict[str, object] = {
        "spectral_radius": summarise(dense.spectral_radius(eigenvalues)),
        "eigenvalues": tuple((z.real, z.imag) for z in eigenvalues.values[0, :_MOST_LISTED].tolist()),
    }
    if step.kind != "residual":
        return fields | _missing(_NOT_RESIDUAL, "spectral_abscissa")
    return fields | {"spectral_abscissa": summarise(dense.spectral_abscissa(eigenvalues))}


def _first(result: Result) -> Result:
    return result.with_values(result.values[:1], result.errors[:1])


def _non_normal_fields(matrix: Tensor, eigenvalues: Result, effort: Effort) -> dict[str, object]:
    """Of the first input alone: powers and resolvents cost more than all else."""
    fields: dict[str, object] = {"henrici_departure": summarise(henrici_departure(matrix, eigenvalues))}
    if not effort.transient_steps:
        return fields | _missing(NEEDS_STANDARD, "kreiss_constant", "transient_growth")
    size = len(matrix[0])
    if size > effort.power_size:
        return fields | _missing(NEEDS_THOROUGH, "kreiss_constant", "transient_growth")
    fields["transient_growth"] = summarise(transient_growth(matrix, powers=effort.transient_steps))
    if size > effort.kreiss_size:
        return fields | _missing(NEEDS_THOROUGH, "kreiss_constant")
    constant = summarise(kreiss_constant(matrix, eigenvalues))
    if constant.value == inf:
        constant = constant.model_copy(update={"outcome": "infinite: the spectral radius exceeds 1"})
    return fields | {"kreiss_constant": constant}


def _sampled_fields(survey: Survey, step: Step) -> dict[str, object]:
    effort, seed = survey.effort, survey.seed(_DRAW, step.index)
    fields = _missing(NOT_FORMED, *_NON_NORMAL)
    if step.kind != "residual":
        fields |= _missing(_NOT_RESIDUAL, "logarithmic_norm", "spectral_abscissa")
    elif effort.symmetric_products:
        norm = logarithmic_norm(step.jacobian, budget=effort.symmetric_products, block=_LANCZOS_BLOCK, seed=seed)
        fields["logarithmic_norm"] = summarise(norm)
    found = causal_blocks(survey, step)
    if found.blocks is not None:
        return fields | _block_fields(step, found.blocks, found.products)
    if not effort.eigen_products:
        return _missing(NEEDS_STANDARD, "logarithmic_norm", *_SPECTRAL) | fields
    outer = outer_eigenvalues(step.jacobian, budget=effort.eigen_products, block=_ARNOLDI_BLOCK, seed=seed)
    return fields | _outer_fields(step, outer)


def _block_fields(step: Step, blocks: Tensor, products: int) -> dict[str, object]:
    determinant = block_log_determinant(blocks, products=products)
    eigenvalues = block_eigenvalues(blocks, products=products)
    return _eigen_fields(step, eigenvalues) | {"log_determinant": summarise(determinant, unit="nat")}


def _outer_fields(step: Step, outer: OuterEigenvalues) -> dict[str, object]:
    listed = [*outer.by_magnitude.values[0].tolist(), *outer.by_real_part.values[0].tolist()]
    fields: dict[str, object] = {
        "spectral_radius": summarise(outer.spectral_radius()),
        "eigenvalues": tuple(dict.fromkeys((z.real, z.imag) for z in listed)),
    }
    return fields | {"spectral_abscissa": summarise(outer.spectral_abscissa())} if step.kind == "residual" else fields
