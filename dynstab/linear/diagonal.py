"""Pointwise regions: factors multiplied out, and the one multiplication that is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Size, Tensor, fx

from dynstab.linear.record import Record
from dynstab.linear.rules.shapes import align, sum_to
from dynstab.linear.rules.table import Diagonal, Factor, Linearisation


def combine(record: Record, own: Diagonal, expansions: dict[fx.Node, Mapping[fx.Node, Factor]]) -> tuple[Factor, ...]:
    """Factors with respect to the record's roots, by the chain rule; noted in `expansions` if needed later."""
    if record.roots == record.inputs and not record.expanded:
        return own.factors
    total: dict[fx.Node, Factor] = {}
    for node, through, factor in zip(record.inputs, record.through, own.factors, strict=True):
        behind = expansions[node].items() if through else ((node, 1.0),)
        for root, inner in behind:
            product = inner if _is_one(factor) else factor if _is_one(inner) else factor * inner
            total[root] = total[root] + product if root in total else product
    if record.expanded:
        expansions[record.result] = total
    return tuple(total[root] for root in record.roots)


def diagonal(factors: tuple[Factor, ...], shapes: tuple[Size, ...], output: Size) -> Linearisation:
    """sum_r factor_r * t_r, roots broadcast to the output."""
    if len(factors) == 1 and shapes[0] == output:
        return _single(factors[0])

    def push(tangents: Sequence[Tensor]) -> Tensor:
        total, own = None, False
        for factor, tangent in zip(factors, tangents, strict=True):
            tangent = align(tangent, output)
            if total is None:
                total, own = (tangent, False) if _is_one(factor) else (tangent * factor, True)
            elif own and total.shape[1:] == output:
                total = _accumulate_(total, factor, tangent)
            else:
                total, own = _accumulated(total, factor, tangent), True
        assert total is not None
        return total if total.shape[1:] == output else total.expand(-1, *output)

    def pull(cotangent: Tensor) -> tuple[Tensor, ...]:
        return tuple(
            sum_to(cotangent if _is_one(factor) else cotangent * factor, shape)
            for factor, shape in zip(factors, shapes, strict=True)
        )

    return Linearisation(push, pull)


def _single(factor: Factor) -> Linearisation:
    if _is_one(factor):
        return Linearisation(lambda tangents: tangents[0], lambda cotangent: (cotangent,))
    return Linearisation(lambda tangents: tangents[0] * factor, lambda cotangent: (cotangent * factor,))


def _is_one(factor: Factor) -> bool:
    return not isinstance(factor, Tensor) and factor == 1.0


def _accumulate_(total: Tensor, factor: Factor, tangent: Tensor) -> Tensor:
    if isinstance(factor, Tensor):
        return total.addcmul_(tangent, factor)
    return total.add_(tangent, alpha=factor)


def _accumulated(total: Tensor, factor: Factor, tangent: Tensor) -> Tensor:
    if isinstance(factor, Tensor):
        return total.addcmul(tangent, factor)
    return total.add(tangent, alpha=factor)
