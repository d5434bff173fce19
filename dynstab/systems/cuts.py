"""Where a graph can be cut into states: a sweep over live sets, linear in its size.

After node p, the live set holds what later nodes still need. Where it is {p}, everything
passes through p: p dominates the sink (Lengauer & Tarjan 1979 give the same set). Where no
single tensor will do (long skips, two streams), the smallest live sets are the states.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import Tensor, fx

from dynstab.systems.dependence import Chain, Values, is_mixing
from dynstab.systems.naming import common_path
from dynstab.systems.residual import coefficient, shift

_FEW_PRODUCTS = 2  # a stretch with no more matrix products than this is one step
_BLOCK_PRODUCTS = 8  # nor is a module with no more than this many taken apart
_NUMBERED = re.compile(r"(.*?)(?:^|\.)(\d+)(?:\.|$)")  # the outermost list on a path, and the member
_BRANCH = 200  # cuts within one residual branch


@dataclass(frozen=True, kw_only=True)
class Cut:
    """The live set after the node at `position` of the chain."""

    position: int
    live: tuple[fx.Node, ...]

    def aligned(self, before: Cut) -> Cut:
        """The same cut, tensors that `before` has too in their places there: J - I compares like with like."""
        if len(self.live) != len(before.live):
            return self
        fresh = iter([node for node in self.live if node not in before.live])
        return Cut(
            position=self.position, live=tuple(node if node in self.live else next(fresh) for node in before.live)
        )


class Sweep:
    """The live sets of a chain at every position."""

    def __init__(self, chain: Chain, values: Values) -> None:
        self.nodes, self.values = chain.nodes, values
        self.index = {node: i for i, node in enumerate(chain.nodes)}
        last = {node: i for i, node in enumerate(chain.nodes)}
        for i, node in enumerate(chain.nodes):
            if node not in chain.source:
                for argument in node.all_input_nodes:
                    if argument in last:
                        last[argument] = i
        last[chain.sink] = len(chain.nodes)
        self.last = last
        self.start = max(self.index[node] for node in chain.source)
        self.sizes = self._sizes()

    def _sizes(self) -> list[int]:
        change = [0] * (len(self.nodes) + 2)
        for node, i in self.index.items():
            change[i] += 1
            change[max(self.last[node], i)] -= 1
        sizes, alive = [], 0
        for delta in change[: len(self.nodes)]:
            alive += delta
            sizes.append(alive)
        return sizes

    def cut(self, position: int) -> Cut:
        live = tuple(n for i, n in enumerate(self.nodes[: position + 1]) if self.last[n] > position and i <= position)
        return Cut(position=position, live=live)

    def valid(self, position: int) -> bool:
        """Whether every live value is a real tensor (a tuple of tensors is no state; complex ones have a real view)."""
        values = [self.values[node] for node in self.cut(position).live]
        return all(isinstance(value, Tensor) and not value.is_complex() for value in values)


def find_cuts(chain: Chain, values: Values) -> list[Cut]:
    """The finest useful cuts, source first, sink last."""
    sweep = Sweep(chain, values)
    end = len(chain.nodes) - 1
    singles = [p for p in range(sweep.start, end + 1) if sweep.sizes[p] == 1 and sweep.valid(p)]
    if not singles or singles[0] != sweep.start:
        singles.insert(0, sweep.start)
    cuts = [sweep.cut(p) for p in singles]
    result = [cuts[0]]
    for low, high in zip(cuts, cuts[1:], strict=False):
        result += _refine(sweep, low, high)
    return result


def _refine(sweep: Sweep, low: Cut, high: Cut) -> list[Cut]:
    """Cuts after `low` up to and with `high`."""
    segment = sweep.nodes[low.position + 1 : high.position + 1]
    inner = range(low.position + 1, high.position)
    if _whole(segment) or _updates(sweep, low, high):
        return [high]
    sizes = {p: sweep.sizes[p] for p in inner if sweep.valid(p)}
    if not sizes:
        return [high]
    smallest = min(sizes.values())
    stops = [low, *(sweep.cut(p) for p, size in sizes.items() if size == smallest), high]
    result, at = [], 0
    while at < len(stops) - 1:
        following = _next_residual(sweep, stops, at)
        if following is None:
            result += _refine(sweep, stops[at], stops[at + 1])
        else:
            result.append(stops[following])
        at = at + 1 if following is None else following
    return result


def _next_residual(sweep: Sweep, stops: list[Cut], at: int) -> int | None:
    """The nearest later cut that ends a residual step from here: a branch's own cuts lie in between."""
    if shift(stops[at], stops[at + 1], sweep.values) is not None:
        return None
    for later in range(at + 1, min(at + 1 + _BRANCH, len(stops))):
        if _updates(sweep, stops[at], stops[later]):
            return later
    return None


def _updates(sweep: Sweep, low: Cut, high: Cut) -> bool:
    """Whether one residual update leads from `low` to `high`."""
    residual = coefficient(low, high, sweep.values) is not None
    return residual and not _several_blocks(sweep.nodes[low.position + 1 : high.position + 1])


def _whole(segment: list[fx.Node]) -> bool:
    """Whether a stretch between two cuts should stay one step."""
    products = sum(is_mixing(node) for node in segment)
    if products <= _FEW_PRODUCTS:
        return True
    return products <= _BLOCK_PRODUCTS and bool(common_path(node.meta.get("path", "") for node in segment))


def _several_blocks(segment: list[fx.Node]) -> bool:
    """Whether a long stretch runs through several members of one list: no single update, though a skip spans it all."""
    paths = [path for node in segment if is_mixing(node) and (path := node.meta.get("path", ""))]
    members: dict[str, set[str]] = {}
    for path in paths:
        numbered = _NUMBERED.match(path)
        if numbered:
            members.setdefault(numbered[1], set()).add(numbered[2])
    return len(paths) > _BLOCK_PRODUCTS and any(len(found) > 1 for found in members.values())
