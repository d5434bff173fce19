"""The couplings of a normalising flow: found in the Jacobians, confirmed by finite moves, and added up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from dynstab.core.estimate import Estimate, Label
from dynstab.core.structure import Couplings
from dynstab.estimators.reordered import Reordered
from dynstab.estimators.result import Result
from dynstab.estimators.structure import Probes, noise_of
from dynstab.estimators.structure_couplings import (
    Coupling,
    FiniteMove,
    Pattern,
    finite_move,
    is_linear,
    pattern_defect,
    read_coupling,
    run_back,
)
from dynstab.linear.operator import LinearOperator, ProductOperator
from dynstab.measures.aggregate import summarise
from dynstab.measures.reconstruction import Inverse, additive_inverse, columns_of, in_source_places, run_forward
from dynstab.measures.spans import Span, probe_columns
from dynstab.measures.survey import Survey
from dynstab.systems.trajectory import Trajectory

_DRAW = 12
_MOST_PATTERNS = 8  # a stack alternates between two; with random permutations no other step's fits, whichever one takes


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """A span with the pattern of a coupling, and what it does over a finite move; `moved` is None if elementwise."""

    span: Span
    coupling: Coupling
    moved: FiniteMove | None

    @property
    def affine(self) -> bool:
        return self.moved is not None and self.moved.affine

    @property
    def shifts(self) -> bool:
        """Additive, and all else stays or is moved about: what keeps volume in any order of the entries."""
        unit = (self.coupling.scales.abs() - 1).abs() <= noise_of(self.span.operator)
        return self.moved is not None and not self.affine and bool(unit.all())

    def defect(self, probes: Probes) -> Result | None:
        """The larger of what its Jacobian holds beside the pattern and of what it misses over the finite move.

        An elementwise step, which has nothing to couple, has none.
        """
        if self.moved is None:
            return None
        found, finite = pattern_defect(self.span.operator, self.coupling.pattern, probes), self.moved.defect
        count = len(found.values)
        return replace(
            found,
            values=torch.maximum(found.values, finite.values[:count]),
            errors=torch.maximum(found.errors, finite.errors[:count]),
            label=Label.ESTIMATE,
            method=f"{found.method}, {finite.method}",
            products=found.products + finite.products,
        )


def see_coupling(survey: Survey, span: Span) -> Seen | None:
    """What kind of coupling the span may be; None where its Jacobian has no such pattern."""
    operator = _at_all_inputs(survey.spectral, span)
    coupling = read_coupling(operator, probe_columns(operator, 1, survey.seed(_DRAW, span.source)))
    if coupling is None or coupling.pattern.elementwise:
        return None if coupling is None else Seen(span=span, coupling=coupling, moved=None)
    moved = finite_move(coupling, partial(run_forward, survey.spectral, span), *_move(survey, span))
    return Seen(span=span, coupling=coupling, moved=moved)


def is_linear_span(survey: Survey, span: Span) -> bool:
    """Whether the span is a linear map, such as a mixing of the entries between couplings."""
    operator = _at_all_inputs(survey.spectral, span)
    return is_linear(operator, partial(run_forward, survey.spectral, span), *_move(survey, span))


def nearest_defect(span: Span, known: Sequence[Seen], probes: Probes) -> Result:
    """By how much a span without a pattern of its own misses the nearest one of the other steps'."""
    patterns: list[Pattern] = []
    for each in known:
        if not any(each.coupling.pattern.same(pattern) for pattern in patterns):
            patterns.append(each.coupling.pattern)
    found = [pattern_defect(span.operator, pattern, probes) for pattern in patterns[:_MOST_PATTERNS]]
    return min(found, key=lambda result: float(result.values.mean()))


def summed(survey: Survey, kept: Sequence[Seen], other: Sequence[Seen]) -> Couplings:
    """The kinds of the couplings, and their ln |det J| beside that of the decomposed Jacobians.

    Args:
        other: steps that have the pattern but are no couplings; their determinant is the product of the scales too.
    """
    affine, every = sum(each.affine for each in kept), [*kept, *other]
    parts = [each.coupling.log_determinant() for each in every]
    total = replace(
        parts[0],
        values=torch.stack([part.values for part in parts]).sum(dim=0),
        errors=torch.stack([part.errors for part in parts]).sum(dim=0),
        method=f"scales of {len(parts)} steps",
        products=sum(part.products for part in parts),
    )
    return Couplings(
        affine=affine,
        additive=len(kept) - affine,
        other=len(other),
        log_determinant=summarise(total, unit="nat"),
        determinant_gap=_gap(survey, every),
    )


def inverse_of(known: Sequence[Seen]) -> Inverse:
    """What a span maps to given columns: by its own scale and shift, or as an additive coupling of the halves.

    Args:
        known: every coupling that a finite move confirmed.
    """
    couplings = {each.span.source: each.coupling for each in known}

    def inverse(trajectory: Trajectory, span: Span, image: Tensor) -> Tensor | None:
        if span.source not in couplings:
            return additive_inverse(trajectory, span, image)
        function = partial(run_forward, trajectory, span)
        return run_back(couplings[span.source], function, in_source_places(span, image))

    return inverse


def _gap(survey: Survey, every: Sequence[Seen]) -> Estimate:
    """The largest |ln |det J|| by which the scales of one step and its decomposed Jacobian differ."""
    gaps = []
    for each in every:
        span, ours = each.span, summarise(each.coupling.log_determinant())
        measured = survey.estimate("step", span.source, "log_determinant") if span.target == span.source + 1 else None
        if measured is None or measured.value is None or ours.value is None or measured.samples != ours.samples:
            continue
        error = (measured.error or 0.0) + (ours.error or 0.0)
        gaps.append((abs(measured.value - ours.value), error, measured.method))
    if not gaps:
        return Estimate.unmeasured("no Jacobian of a coupling was decomposed", unit="nat")
    value, error, method = max(gaps)
    return Estimate(value=value, error=error, unit="nat", method=f"scales beside {method}", label=Label.EXACT)


def _move(survey: Survey, span: Span) -> tuple[Tensor, Tensor]:
    """The state that the span starts at, and a random move of its size; (samples, n, 1) each."""
    point = columns_of(survey.spectral.states[span.source])
    generator = torch.Generator().manual_seed(survey.seed(_DRAW, span.source, 1))
    offset = torch.randn(point.shape, generator=generator).to(point)
    return point, offset * (float(point.square().mean().sqrt()) or 1.0)


def _at_all_inputs(trajectory: Trajectory, span: Span) -> LinearOperator:
    """The span's Jacobian at as many inputs as the states have; a matrix may be kept for fewer."""
    if span.operator.samples == trajectory.samples:
        return span.operator
    steps = trajectory.steps[span.source : span.target]
    operator = steps[0].jacobian if len(steps) == 1 else ProductOperator(tuple(step.jacobian for step in steps))
    return operator if span.place is None else Reordered(operator, rows=span.place)
