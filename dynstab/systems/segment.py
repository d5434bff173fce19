"""A step as a function again: the part of a graph between two live sets, run on other values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from dynstab.systems.dependence import Values


class SegmentFunction:
    """Tensors of the source state -> tensors of the target state.

    Recomputes all that depends on the source by data, integer nodes included (a router may
    choose other experts); everything else keeps the value of the captured run.
    """

    def __init__(self, source: tuple[fx.Node, ...], target: tuple[fx.Node, ...], values: Values) -> None:
        self.source, self.target = source, target
        self.nodes = _recomputed(source, target)
        own = set(self.nodes) | set(source)
        needed = {a for node in (*self.nodes,) for a in node.all_input_nodes} | set(target)
        self.context = {node: values[node] for node in needed if node not in own}

    def __call__(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        env: dict[fx.Node, Any] = {**self.context, **dict(zip(self.source, tensors, strict=True))}
        for node in self.nodes:
            env[node] = node.target(*_filled(node.args, env), **_filled(node.kwargs, env))  # type: ignore[operator]
        return tuple(env[node] for node in self.target)


def _filled(arguments: Any, env: dict[fx.Node, Any]) -> Any:
    return map_arg(arguments, lambda node: env[node])


def _recomputed(source: tuple[fx.Node, ...], target: tuple[fx.Node, ...]) -> list[fx.Node]:
    """Calls that depend on the source by data and that the target needs, in order."""
    order = {node: i for i, node in enumerate(source[0].graph.nodes)}
    first = min(order[node] for node in source)
    depends = set(source)
    for node in source[0].graph.nodes:
        if order[node] > first and node.op == "call_function" and any(a in depends for a in node.all_input_nodes):
            depends.add(node)
    wanted, stack = set(), [node for node in target if node in depends and node not in source]
    while stack:
        node = stack.pop()
        if node not in wanted:
            wanted.add(node)
            stack.extend(a for a in node.all_input_nodes if a in depends and a not in source)
    return sorted(wanted, key=lambda node: order[node])


def relative_change(function: SegmentFunction, tensors: tuple[Tensor, ...], size: float) -> float:
    """How much the output moves, relative to its largest finite entry, when the input moves by `size` at random."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        before = function(tensors)
        noise = [torch.randn(t.shape, generator=generator, dtype=torch.float32).to(t) for t in tensors]
        after = function(tuple(t + size * n * _typical(t) for t, n in zip(tensors, noise, strict=True)))
    return max(
        float((a - b).abs().nan_to_num(0.0, 0.0).max() / b.abs().nan_to_num(0.0, 0.0).max().clamp_min(1e-30))
        for a, b in zip(after, before, strict=True)
    )


def _typical(tensor: Tensor) -> Tensor:
    """Mean magnitude of the finite entries; 1 where it is too small for a share of it to be told from zero."""
    size = tensor.abs().nan_to_num(0.0, 0.0).mean()
    limits = torch.finfo(size.dtype)
    return size.where(size > limits.tiny / limits.eps, 1.0)
