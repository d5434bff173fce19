"""Which pointwise ops are multiplied out together.

A node inside a region never gets a tangent of its own: where the region ends, the tangents of its
roots are multiplied by factors that were multiplied out beforehand, so that a chain of pointwise ops
costs one multiplication a sweep.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from torch import fx

from dynstab.linear.record import Record

# With more roots than this, tangents in between are cheaper than one product per root.
_MOST_ROOTS = 4


def form_regions(records: tuple[Record, ...], target: set[fx.Node]) -> None:
    """Decide which pointwise records lie inside a region, and what each one multiplies."""
    consumers: dict[fx.Node, list[Record]] = defaultdict(list)
    for record in records:
        for node in record.inputs:
            consumers[node].append(record)
    interior: dict[fx.Node, Record] = {}
    for record in records:
        if not record.pointwise:
            continue
        if record.mixed:
            record.through, record.roots = (False,) * len(record.inputs), distinct(record.inputs)
            continue
        record.through = tuple(node in interior for node in record.inputs)
        record.roots = _roots(record, interior)
        behind = [interior[node] for node in record.inputs if node in interior]
        if len(record.roots) > _MOST_ROOTS and behind:
            for other in behind:
                other.inside = False
                interior.pop(other.result, None)
            record.through, record.roots = (False,) * len(record.inputs), distinct(record.inputs)
        else:
            for other in behind:
                other.expanded = True
        users = consumers[record.result]
        if record.result in target or not all(user.pointwise and not user.mixed for user in users):
            continue
        # Two roots in several places would be multiplied out in each of them.
        if len(record.roots) == 1 or len(users) == 1:
            record.inside = True
            interior[record.result] = record


def _roots(record: Record, interior: Mapping[fx.Node, Record]) -> tuple[fx.Node, ...]:
    return distinct(root for node in record.inputs for root in (interior[node].roots if node in interior else (node,)))


def distinct(nodes: Iterable[fx.Node]) -> tuple[fx.Node, ...]:
    """Each node once, in the order of its first appearance."""
    return tuple(dict.fromkeys(nodes))
