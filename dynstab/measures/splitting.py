"""Blocks of several sub-steps, attention and MLP say, as a split integrator of the sum of their fields.

One sub-step after the other is Lie-Trotter splitting of h' = f_A(h) + f_B(h). Its error is of the order of the
commutator of the two, which is 0 where their order does not matter.

References:
    McLachlan & Quispel (2002), Splitting methods, Acta Numerica 11; Lu et al. (2019), Understanding and improving
    transformer from a multi-particle dynamic system point of view; Strang (1968), SIAM J. Numer. Anal. 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from dynstab.core.estimate import Estimate, Label
from dynstab.core.network_flow import SubStep
from dynstab.estimators.result import Result
from dynstab.linear.operator import LinearOperator
from dynstab.measures.aggregate import summarise
from dynstab.measures.blocks import RepeatedBlocks, Value, plus
from dynstab.measures.integrators import relative_change


def commutators(
    blocks: RepeatedBlocks, operator: Callable[[int], LinearOperator], columns: Callable[[int], Tensor]
) -> Iterator[SubStep]:
    """Every two neighbouring sub-steps of every block.

    Args:
        operator: of the position of a step in the run, in the order of the first state.
        columns: random probes (samples, size, k) for that position.
    """
    for position in range(len(blocks.steps) - 1):
        block, inside = divmod(position, blocks.period)
        if inside < blocks.period - 1:
            yield SubStep(
                block=block,
                first=blocks.steps[position].index,
                second=blocks.steps[position + 1].index,
                commutator=commutator(operator(position), operator(position + 1), columns(position)),
            )


def commutator(first: LinearOperator, second: LinearOperator, columns: Tensor) -> Estimate:
    """||B A - A B||_F / ||A + B||_F of the fields A = J_1 - I and B = J_2 - I, from columns of probes."""
    a, b = first.matmat(columns) - columns, second.matmat(columns) - columns
    bracket = (second.matmat(a) - a) - (first.matmat(b) - b)
    size, total = (torch.linalg.vector_norm(x, dim=(1, 2), dtype=torch.float64) for x in (bracket, a + b))
    count = columns.shape[2]
    values = torch.where(total > 0, size / torch.where(total > 0, total, 1.0), 0.0)
    scatter = values / (2 * count) ** 0.5 + 8 * torch.finfo(columns.dtype).eps
    result = Result(
        values=values[:, None],
        errors=scatter[:, None],
        label=Label.ESTIMATE,
        method=f"{count} Gaussian probes",
        products=4 * count,
    )
    return summarise(result)


def splitting_changes(blocks: RepeatedBlocks) -> dict[str, Estimate]:
    """The relative change of the run's update under other compositions of the same sub-steps."""
    start, end = (blocks.columns(blocks.value(position)) for position in (0, len(blocks.steps)))
    moved = torch.linalg.vector_norm(end - start, dim=(1, 2), dtype=torch.float64)
    changes = {}
    for name, compose in (("order_change", _reversed), ("parallel_change", _parallel), ("strang_change", _strang)):
        value = blocks.value(0)
        with torch.no_grad():
            for block in range(blocks.count):
                value = compose(blocks, range(block * blocks.period, (block + 1) * blocks.period), value)
        gap = torch.linalg.vector_norm(blocks.columns(value) - end, dim=(1, 2), dtype=torch.float64)
        changes[name] = relative_change(gap, moved, end)
    return changes


def _reversed(blocks: RepeatedBlocks, positions: range, h: Value) -> Value:
    for position in reversed(positions):
        h = plus(h, blocks.update(position, h))
    return h


def _parallel(blocks: RepeatedBlocks, positions: range, h: Value) -> Value:
    total = h
    for position in positions:
        total = plus(total, blocks.update(position, h))
    return total


def _strang(blocks: RepeatedBlocks, positions: range, h: Value) -> Value:
    """Half of every sub-step but the last, that one whole, and the halves again in reverse."""
    for position, share in [*((p, 0.5) for p in positions[:-1]), (positions[-1], 1.0)]:
        h = plus(h, blocks.update(position, h), share)
    for position in reversed(positions[:-1]):
        h = plus(h, blocks.update(position, h), 0.5)
    return h
