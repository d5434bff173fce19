"""Maps between states of one size: single steps, or several where a state between them holds more tensors."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from dynstab.estimators.halves import Halves, halves_of, in_place
from dynstab.estimators.reordered import Reordered
from dynstab.linear.operator import DenseOperator, LinearOperator, ProductOperator
from dynstab.measures.survey import Survey
from dynstab.systems.trajectory import State

_MOST = 256


@dataclass(frozen=True, kw_only=True, eq=False)
class Span:
    """The map from state `source` to state `target`.

    Attributes:
        operator: its Jacobian with the target's rows where the source has them, if the states have halves.
        halves: of the source, None where it has none.
    """

    source: int
    target: int
    operator: LinearOperator
    halves: Halves | None

    @property
    def place(self) -> Tensor | None:
        """Rows of the target in the order of the source's, None where that is the same."""
        return self.operator.out if isinstance(self.operator, Reordered) else None


def spans(survey: Survey) -> list[Span]:
    """Between neighbouring states of the commonest size; at most 256, evenly chosen.

    A state of three tensors between two pairs, as an update of both halves at once leaves it, is passed over.
    """
    trajectory = survey.spectral
    sizes = Counter(state.size for state in trajectory.states if _whole(state))
    if not sizes:
        return []
    size = sizes.most_common(1)[0][0]
    stops = [state.index for state in trajectory.states if _whole(state) and state.size == size]
    pairs = list(zip(stops, stops[1:], strict=False))
    stride = -(-len(pairs) // _MOST)
    return [_span(survey, source, target) for source, target in pairs[:: max(1, stride)]]


def probe_columns(operator: LinearOperator, count: int, seed: int) -> Tensor:
    """Standard normal columns at the input of an operator, (samples, cols, count)."""
    generator = torch.Generator().manual_seed(seed)
    columns = torch.randn(operator.samples, operator.cols, count, generator=generator)
    return columns.to(device=operator.device, dtype=operator.dtype)


def _whole(state: State) -> bool:
    """One tensor, or two of equal shape: what can be a state of a structured flow."""
    shapes = state.layout.shapes
    return len(shapes) == 1 or (len(shapes) == 2 and shapes[0] == shapes[1])


def _span(survey: Survey, source: int, target: int) -> Span:
    trajectory, matrices = survey.spectral, survey.spectral_matrices[source:target]
    operators = tuple(
        step.jacobian if matrix is None else DenseOperator(matrix)
        for step, matrix in zip(trajectory.steps[source:target], matrices, strict=True)
    )
    if len({operator.samples for operator in operators}) > 1:  # matrices are kept for fewer inputs than there are
        operators = tuple(step.jacobian for step in trajectory.steps[source:target])
    operator = operators[0] if len(operators) == 1 else ProductOperator(operators)
    first, last = trajectory.states[source], trajectory.states[target]
    halves, after = (halves_of(state.layout, state.feature_dim) for state in (first, last))
    if halves is None or after is None:
        return Span(source=source, target=target, operator=operator, halves=None)
    probe = probe_columns(operator, 1, survey.seed(source))
    return Span(source=source, target=target, operator=in_place(operator, halves, after, probe), halves=halves)
