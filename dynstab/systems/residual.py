"""Is a step residual: v = alpha u + rest, with alpha != 0 and a rest that depends on u?

Alpha is followed from v back through additions, multiples by scalars, and ops that keep the
order of the entries. It may be one number for each channel (a learned skip factor): such a step
is residual, too, but what needs one number of it (a vector field (J - alpha I) / h) is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, fx

from dynstab.systems.dependence import Values, op_name

if TYPE_CHECKING:
    from dynstab.systems.cuts import Cut

Alpha = float | Tensor

# Ops that keep the flattened order of the entries, when they keep their number.
SAME_ORDER = {
    "view", "_unsafe_view", "reshape", "clone", "alias", "contiguous", "unsqueeze", "squeeze", "_to_copy",
    "flatten", "unflatten", "expand", "lift_fresh_copy",
}  # fmt: skip


def moving(low: Cut, high: Cut) -> tuple[fx.Node, fx.Node] | None:
    """The one tensor that is new in `high`, with the latest that ended before it; None where more are new."""
    gone = [node for node in low.live if node not in high.live]
    new = [node for node in high.live if node not in low.live]
    return (gone[-1], new[0]) if gone and len(new) == 1 else None


def coefficient(low: Cut, high: Cut, values: Values) -> Alpha | None:
    """The residual coefficient alpha of the step, None where it is not residual.

    A tensor of one entry for each of the state's holds the factors of channels that differ.
    """
    alpha, rest = _split(low, high, values)
    if isinstance(alpha, Tensor):
        # The scale of a norm in front of a sum with another stream is no skip: there the rest rests when u moves.
        rest = _split(low, high, values, alone=True)[1]
    return _simplified(alpha) if rest and _everywhere(alpha) else None


def shift(low: Cut, high: Cut, values: Values) -> float | None:
    """alpha where the step is v = alpha u + constant, in the same order of entries; None otherwise."""
    alpha, rest = _split(low, high, values)
    return alpha if not rest and isinstance(alpha, float) and alpha != 0 else None


def _split(low: Cut, high: Cut, values: Values, *, alone: bool = False) -> tuple[Alpha, bool]:
    """alpha, and whether the rest depends on the state (`alone`: on its moving tensor)."""
    pair = moving(low, high)
    if pair is None or values[pair[0]].numel() != values[pair[1]].numel():
        return 0.0, True
    boundary = frozenset(pair[:1] if alone else low.live)
    return _Follower(pair[0], boundary, values).split(pair[1])


def _everywhere(alpha: Alpha) -> bool:
    """Whether the skip reaches every entry."""
    return bool((alpha != 0).all()) if isinstance(alpha, Tensor) else alpha != 0


def _simplified(alpha: Alpha) -> Alpha:
    if isinstance(alpha, Tensor) and bool((alpha == alpha[0]).all()):
        return float(alpha[0])
    return alpha


class _Follower:
    """Splits nodes into alpha * u and a rest, remembering what it has seen."""

    def __init__(self, source: fx.Node, boundary: frozenset[fx.Node], values: Values) -> None:
        self.source, self.boundary, self.values = source, boundary, values
        self.order = {node: i for i, node in enumerate(source.graph.nodes)}
        self.depends: dict[fx.Node, bool] = {}
        self.known: dict[fx.Node, tuple[Alpha, bool]] = {}

    def split(self, node: fx.Node) -> tuple[Alpha, bool]:
        """(alpha, whether the rest depends on the source's state)."""
        if node not in self.known:
            self.known[node] = self._split(node)
        return self.known[node]

    def _split(self, node: fx.Node) -> tuple[Alpha, bool]:
        if node is self.source:
            return 1.0, False
        if not self._depends(node):
            return 0.0, False
        name, arguments = op_name(node), node.args
        if name in SAME_ORDER and self._numel(arguments[0]) == self._numel(node):
            return self.split(arguments[0])  # type: ignore[arg-type]
        if name in ("add", "sub") and self._same_size(node):
            factor = float(node.kwargs.get("alpha", 1)) * (1 if name == "add" else -1)  # type: ignore[arg-type]
            left, right = self._part(arguments[0]), self._part(arguments[1])
            return left[0] + factor * right[0], left[1] or right[1]
        if name in ("mul", "div"):
            scaled = self._scaled(name, arguments, self.values[node])
            if scaled is not None:
                return scaled
        return 0.0, True

    def _part(self, argument: Any) -> tuple[Alpha, bool]:
        return self.split(argument) if isinstance(argument, fx.Node) else (0.0, False)

    def _scaled(self, name: str, arguments: tuple[Any, ...], result: Any) -> tuple[Alpha, bool] | None:
        for value, other in (arguments[:2], arguments[1::-1]):
            factor = self._factor(other, result)
            kept = isinstance(value, fx.Node) and self._numel(value) == result.numel()
            if kept and factor is not None and (name == "mul" or value is arguments[0]):
                alpha, rest = self.split(value)
                return (alpha * factor if name == "mul" else alpha / factor), rest
        return None

    def _factor(self, argument: Any, result: Any) -> Alpha | None:
        """A factor that does not depend on the source: one number, or one for each channel of the result."""
        if isinstance(argument, (int, float)):
            return float(argument)
        if not isinstance(argument, fx.Node) or self._depends(argument):
            return None
        value = self.values.get(argument)
        if not isinstance(value, Tensor) or value.is_complex():
            return None
        if value.numel() == 1:
            return float(value)
        # One long dimension is a vector of channels; more would be a mask or a rotation by position.
        return value.expand_as(result).reshape(-1) if max(value.shape) == value.numel() else None

    def _depends(self, node: fx.Node) -> bool:
        """Whether a node depends on the state that the source belongs to (iterative: graphs are deep)."""
        stack = [node]
        while stack:
            top = stack[-1]
            if top in self.depends:
                stack.pop()
            elif top in self.boundary:
                self.depends[top] = True
            elif self.order[top] <= self.order[self.source]:
                self.depends[top] = False
            else:
                waiting = [a for a in top.all_input_nodes if a not in self.depends]
                if waiting:
                    stack.extend(waiting)
                else:
                    self.depends[top] = any(self.depends[a] for a in top.all_input_nodes)
        return self.depends[node]

    def _numel(self, argument: Any) -> int:
        value = self.values.get(argument) if isinstance(argument, fx.Node) else None
        return value.numel() if isinstance(value, Tensor) else -1

    def _same_size(self, node: fx.Node) -> bool:
        """Whether each argument that follows the source has as many entries as the sum (no broadcast)."""
        return all(
            not isinstance(a, fx.Node) or not self._depends(a) or self._numel(a) == self._numel(node)
            for a in node.args[:2]
        )
