"""The vector field along a solution: its eigenvalues beside the solver's stability region, its growth, its trace.

A is the field's Jacobian in the direction of integration: that of -f where the solver goes back in time.

References:
    Hairer & Wanner (1996), Solving ordinary differential equations II, IV.2; Soderlind (2006), BIT 46;
    Grathwohl et al. (2019), FFJORD (Hutchinson's trace along a flow).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dynstab.core.estimate import Estimate, Label
from dynstab.estimators import hutchinson
from dynstab.estimators.arnoldi import outer_eigenvalues
from dynstab.estimators.lanczos import logarithmic_norm
from dynstab.estimators.result import Result
from dynstab.linear.operator import JacobianOperator
from dynstab.linear.runge_kutta import Tableau
from dynstab.measures.aggregate import summarise
from dynstab.measures.effort import Effort
from dynstab.systems.flow_points import FieldPoint

RATE = "1/time"
NEUTRAL = 1e-6
"""Modes whose |Re (h lambda)| is below this neither grow nor decay within a step."""

_LISTED = 64
_SPARSE_POINTS = 12
_ELSEWHERE = "measured at a dozen steps only: the state is too large to form the Jacobian"


@dataclass(frozen=True, kw_only=True)
class FieldSurvey:
    """How the field is looked at: which inputs, by which means.

    Attributes:
        dense: Jacobians are formed. inputs: how many of the inputs are decomposed. every: of the points without a
            formed Jacobian, one in so many is looked at.
    """

    dense: bool
    inputs: int
    every: int
    effort: Effort
    seed: int

    @classmethod
    def of(cls, points: Sequence[FieldPoint], effort: Effort, seed: int) -> FieldSurvey:
        operator = points[0].jacobian
        dense = operator.cols <= effort.dense_size
        affordable = effort.dense_work / (10.0 * len(points) * operator.cols**3 + 1)
        inputs = max(1, min(operator.samples, int(affordable)))
        every = max(1, -(-len(points) // _SPARSE_POINTS))
        return cls(dense=dense, inputs=inputs, every=every, effort=effort, seed=seed)


@dataclass(frozen=True, kw_only=True)
class Field:
    """What was found at one point.

    Attributes:
        eigenvalues: (inputs, k) complex128, all or the outermost; None where not looked for.
        log_norm, trace: (inputs, 1), None where not looked for.
    """

    eigenvalues: Tensor | None = None
    log_norm: Result | None = None
    trace: Result | None = None
    complete: bool = False


def field_at(jacobian: JacobianOperator, index: int, sign: float, how: FieldSurvey) -> Field:
    """The field at one point, in the direction of integration."""
    if how.dense:
        matrices = sign * jacobian.dense()[: how.inputs].double()
        if not bool(matrices.isfinite().all()):
            return Field()
        return Field(
            eigenvalues=torch.linalg.eigvals(matrices),
            log_norm=_exact(torch.linalg.eigvalsh((matrices + matrices.mT) / 2)[:, -1:], matrices),
            trace=_exact(matrices.diagonal(dim1=1, dim2=2).sum(dim=1, keepdim=True), matrices),
            complete=True,
        )
    trace = hutchinson.trace(jacobian, probes=how.effort.flow_probes, seed=how.seed)
    found = trace.with_values(sign * trace.values, trace.errors)
    if index % how.every or not how.effort.eigen_products or sign < 0:
        return Field(trace=found)
    outer = outer_eigenvalues(jacobian, 4, budget=how.effort.eigen_products, block=2, seed=how.seed)
    both = torch.cat([outer.by_magnitude.values, outer.by_real_part.values], dim=1)
    norm = logarithmic_norm(jacobian, identity=0.0, budget=how.effort.symmetric_products, block=1, seed=how.seed)
    return Field(eigenvalues=both, log_norm=norm, trace=found)


def _exact(values: Tensor, matrices: Tensor) -> Result:
    size, cols = torch.linalg.matrix_norm(matrices), matrices.shape[1]
    errors = (cols * torch.finfo(torch.float64).eps * size)[:, None]
    return Result(values=values, errors=errors, label=Label.EXACT, method="dense Jacobian of the field", products=cols)


def describe(field: Field, size: float, tableau: Tableau) -> dict[str, object]:
    """The fields of a `SolverStep` that speak of the vector field; `size` is |h|."""
    fields: dict[str, object] = {}
    if field.log_norm is not None:
        fields["logarithmic_norm"] = summarise(field.log_norm, unit=RATE)
    if field.trace is not None:
        fields["trace"] = summarise(field.trace, unit=RATE)
    if field.eigenvalues is None:
        return fields
    real, z = field.eigenvalues.real, size * field.eigenvalues
    decays = -real[z.real < -NEUTRAL]
    settled = z[z.real <= NEUTRAL]
    worst = _worst(field)
    fields["abscissa"] = worst(real, RATE)
    fields["fastest_decay"] = worst(decays, RATE)
    fields["slowest_decay"] = worst(-decays, RATE, -1.0)
    fields["amplification"] = worst(tableau.amplification(z), "1")
    fields["neutral_amplification"] = worst(tableau.amplification(settled), "1")
    order = z[0].abs().argsort(descending=True)[:_LISTED]
    fields["spectrum"] = tuple((value.real, value.imag) for value in z[0][order].tolist())
    return fields


def _worst(field: Field) -> Callable[..., Estimate]:
    """The largest over modes and inputs."""
    assert field.eigenvalues is not None
    count = len(field.eigenvalues)
    means = "eigenvalues of the field's Jacobian" if field.complete else "Arnoldi, outermost eigenvalues of the field"

    def estimate(values: Tensor, unit: str, sign: float = 1.0) -> Estimate:
        if not values.numel():
            return Estimate.unmeasured("no such mode", unit=unit)
        worst = float(values.max())
        method = f"{means}, the worst of {count} inputs" if count > 1 else means
        return Estimate(value=sign * worst, unit=unit, method=method, label=Label.ESTIMATE, samples=count)

    return estimate


def missing(field: Field, how: FieldSurvey) -> dict[str, object]:
    """Reasons for what was not looked at."""
    reason = "the Jacobian of the field is not finite" if how.dense else _ELSEWHERE
    if not how.dense and not how.effort.eigen_products:
        reason = "needs effort standard"
    names = ("abscissa", "fastest_decay", "slowest_decay", "amplification", "neutral_amplification")
    wanted = () if field.eigenvalues is not None else names
    return {name: Estimate.unmeasured(reason) for name in (*wanted, *(() if field.log_norm else ("logarithmic_norm",)))}


def integral(
    sizes: Sequence[float], starts: Sequence[Result | None], middles: Sequence[Result | None], end: Result | None
) -> Result | str:
    """The integral along the solution, (inputs, 1), or in words why not.

    By Simpson's rule over each step; by the trapezoidal rule where no step has a middle. Its error is how far the next
    lower rule (trapezoidal, rectangular) is from it, and what the values' own errors add.
    """
    points = [each for each in (*starts, end) if each is not None]
    halves = [each for each in middles if each is not None]
    if len(points) <= len(starts) or len(halves) not in (0, len(starts)):
        return "the field was not measured at every step"
    rough, total = _sums(sizes, [each.values for each in points], [each.values for each in halves])
    _, doubt = _sums(sizes, [each.errors for each in points], [each.errors for each in halves])
    return Result(
        values=total,
        errors=(total - rough).abs() + doubt,
        label=Label.ESTIMATE,
        method=f"{'Simpson' if halves else 'trapezoidal'} rule over {len(starts)} steps, {points[0].method}",
        products=sum(each.products for each in (*points, *halves)),
    )


def _sums(sizes: Sequence[float], points: Sequence[Tensor], halves: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """By the next lower rule, and by the one that serves."""
    left, right = _over(sizes, points[:-1]), _over(sizes, points[1:])
    trapezoidal = (left + right) / 2
    return (trapezoidal, (left + 4 * _over(sizes, halves) + right) / 6) if halves else (left, trapezoidal)


def _over(sizes: Sequence[float], values: Sequence[Tensor]) -> Tensor:
    return torch.stack([size * value for size, value in zip(sizes, values, strict=True)]).sum(dim=0)
