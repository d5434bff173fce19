"""Activations whose derivative jumps: where, and which of them are zero on a half-line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, fx

from dynstab.linear.rules.table import bind
from dynstab.systems.dependence import Values, op_name
from dynstab.systems.trajectory import Activation

Arguments = Mapping[str, Any]
Kinks = tuple[float, ...]


def _at(*places: float) -> Callable[[Arguments], Kinks]:
    return lambda _: places


def _bounds(low: str, high: str) -> Callable[[Arguments], Kinks]:
    """At those of two arguments that are given as numbers."""
    return lambda arguments: tuple(
        float(bound) for name in (low, high) if isinstance(bound := arguments.get(name), (int, float))
    )


def _shrink(arguments: Arguments) -> Kinks:
    return -float(arguments["lambd"]), float(arguments["lambd"])


def _elu(arguments: Arguments) -> Kinks:
    """The slopes at zero are alpha * input_scale from below and 1 from above, both times scale."""
    return () if float(arguments["alpha"]) * float(arguments["input_scale"]) == 1.0 else (0.0,)


_KINKS: dict[str, Callable[[Arguments], Kinks]] = {
    **dict.fromkeys(("relu", "leaky_relu", "_prelu_kernel", "rrelu_with_noise", "abs"), _at(0.0)),
    "relu6": _at(0.0, 6.0),
    **dict.fromkeys(("hardsigmoid", "hardswish"), _at(-3.0, 3.0)),
    "hardtanh": _bounds("min_val", "max_val"),
    "threshold": _bounds("threshold", ""),
    **dict.fromkeys(("clamp", "clamp_min", "clamp_max"), _bounds("min", "max")),
    **dict.fromkeys(("softshrink", "hardshrink"), _shrink),
    "elu": _elu,
}
# What the output is below the lowest kink: a unit that stays at zero passes no gradient.
_FLOOR = {"hardtanh": "min_val", "threshold": "value", "clamp": "min", "clamp_min": "min"}


def activation_of(node: fx.Node, values: Values) -> Activation | None:
    """The activation that a node computes, None where its derivative does not jump."""
    kind = op_name(node).rstrip("_")
    source = node.args[0] if node.args else None
    if kind not in _KINKS or not isinstance(source, fx.Node) or not isinstance(values[source], Tensor):
        return None
    arguments = bind(node.target, node.args, node.kwargs)
    kinks = _KINKS[kind](arguments)
    if not kinks:
        return None
    # A clamp on one number an input (a standard deviation, say) is no layer of units.
    units = values[node].ndim > 1
    return Activation(
        name=node.meta.get("path") or node.name,
        kind=kind,
        input=values[source],
        output=values[node],
        kinks=kinks,
        rectifier=units and (kind in ("relu", "relu6") or (kind in _FLOOR and arguments[_FLOOR[kind]] == 0)),
    )
