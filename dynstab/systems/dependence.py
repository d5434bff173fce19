"""Which nodes of a graph carry derivatives from a source to a sink."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from dynstab.capture.graph import Graph
from dynstab.core.errors import StateError

aten = torch.ops.aten
Values = Mapping[fx.Node, Any]

# Results that follow an argument's shape alone; and those that follow its value without a derivative.
_SHAPED = {
    "zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "new_zeros", "new_ones",
    "new_full", "new_empty",
}  # fmt: skip
_FLAT = {*_SHAPED, "detach", "floor", "ceil", "round", "sign", "trunc", "argmax", "argmin", "bernoulli"}
_MIXING = {
    "mm", "addmm", "bmm", "baddbmm", "matmul", "linear", "mv", "dot", "convolution", "einsum", "addmv", "addbmm",
    "_convolution", "conv1d", "conv2d", "conv3d", "_grouped_mm", "_trilinear", "bilinear",
}  # fmt: skip


def op_name(node: fx.Node) -> str:
    """The ATen name of a node's op, "getitem" for a selection, "" for anything but a call."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.split("::")[1]
    return getattr(target, "__name__", "") if node.op == "call_function" else ""


def is_mixing(node: fx.Node) -> bool:
    """Whether the op is a matrix product or a convolution."""
    return op_name(node) in _MIXING


def floating(value: Any) -> bool:
    """Whether a node's value holds a floating-point tensor."""
    if isinstance(value, Tensor):
        return value.is_floating_point() or value.is_complex()
    return isinstance(value, (tuple, list)) and any(floating(item) for item in value)


def carries(node: fx.Node, values: Values) -> bool:
    """Whether a derivative with respect to an argument can pass through this node."""
    return op_name(node) not in _FLAT and not node.meta.get("no_grad") and floating(values.get(node))


def coarsest_dtype(nodes: Iterable[fx.Node], values: Values) -> torch.dtype:
    """The floating dtype with the fewest digits among the nodes' tensors."""
    found = {value.dtype for node in nodes if isinstance(value := values.get(node), Tensor) and floating(value)}
    return max(found, key=lambda dtype: torch.finfo(dtype).eps, default=torch.float32)


def reach(nodes: Iterable[fx.Node], start: Iterable[fx.Node], values: Values | None = None) -> set[fx.Node]:
    """What depends on `start`: by data, or with `values` by derivatives only."""
    found = set(start)
    for node in nodes:
        follows = node.op != "output" and any(a in found for a in node.all_input_nodes)
        if follows and (values is None or carries(node, values)):
            found.add(node)
    return found


def between(nodes: list[fx.Node], source: Iterable[fx.Node], sink: fx.Node, values: Values) -> list[fx.Node]:
    """Nodes that carry a derivative from the source to the sink, both included, in order."""
    start = set(source)
    forward = reach(nodes, start, values)
    backward = {sink} if sink in forward else set()
    for node in reversed(nodes):
        if node in backward and node not in start:
            backward.update(a for a in node.all_input_nodes if a in forward)
    return [node for node in nodes if node in backward]


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A source, the sink, and the nodes that carry derivatives between them, in order."""

    source: tuple[fx.Node, ...]
    sink: fx.Node
    nodes: list[fx.Node]
    notes: tuple[str, ...] = ()


def find_chain(graph: Graph, values: Values) -> Chain:
    """The chain from the input (or its embedding) to the deepest output.

    Several sources that only meet by addition or concatenation are one stem; otherwise the
    source with the longest chain is taken and the others are context, which the notes say.
    Where frozen modules stand in front (no_grad), the chain begins behind them.

    Raises:
        StateError: no output depends on an input by a derivative.
    """
    nodes = list(graph.module.graph.nodes)
    sources = _sources(graph, nodes, values)
    outputs = [n for n in dict.fromkeys(graph.outputs) if isinstance(n, fx.Node) and floating(values.get(n))]
    depth = _levels(nodes)
    sinks = _reached(nodes, outputs, sources, values)
    notes: tuple[str, ...] = ()
    if not sinks:
        sources = _held(graph, nodes, sources, values)
        sinks = _reached(nodes, outputs, sources, values)
        notes = ("forward runs its first modules without gradients: the chain begins behind that point",)
    if not sinks:
        raise StateError(
            "no floating-point output depends on the input by a derivative",
            expected="a forward that is differentiable in its input or in an embedding of it",
            remedy="check for detach(), no_grad() or outputs that are integers",
        )
    sink = max(sinks, key=lambda n: depth[n])
    chains = [Chain(source=s, sink=sink, nodes=between(nodes, s, sink, values)) for s in _stems(sources, sink, values)]
    names = dict(zip(graph.input_nodes, graph.input_names, strict=False))
    chain = _longest([chain for chain in chains if chain.nodes], values, names)
    return replace(chain, notes=(*notes, *chain.notes))


def _reached(nodes: list[fx.Node], outputs: list[fx.Node], sources: list[fx.Node], values: Values) -> list[fx.Node]:
    """The outputs that depend on a source by a derivative."""
    spread = reach(nodes, sources, values)
    return [node for node in outputs if node in spread]


def _longest(chains: list[Chain], values: Values, names: Mapping[fx.Node, str]) -> Chain:
    length = max(len(chain.nodes) for chain in chains)
    close = [chain for chain in chains if len(chain.nodes) >= 0.8 * length]
    best = max(close, key=lambda chain: sum(values[node].numel() for node in chain.source))
    if len(chains) == 1:
        return best
    others = ", ".join(_label(chain, names) for chain in chains if chain is not best)
    note = f"several sources: this is the chain from {_label(best, names)}, with {others} as context"
    return Chain(source=best.source, sink=best.sink, nodes=best.nodes, notes=(note,))


def _label(chain: Chain, names: Mapping[fx.Node, str]) -> str:
    return " + ".join(names.get(node) or node.meta.get("path") or node.name for node in chain.source)


def _levels(nodes: list[fx.Node]) -> dict[fx.Node, int]:
    level: dict[fx.Node, int] = {}
    for node in nodes:
        level[node] = 1 + max((level[a] for a in node.all_input_nodes), default=0)
    return level


def _sources(graph: Graph, nodes: list[fx.Node], values: Values) -> list[fx.Node]:
    """Floating inputs; and the first floating nodes that depend on both an integer input and a parameter."""
    inputs = graph.input_nodes
    sources = [node for node in inputs if floating(values[node])]
    fed = reach(nodes, [node for node in inputs if node not in sources])
    learned = reach(nodes, [n for n in graph.parameter_nodes if floating(values[n])])
    downstream = reach(nodes, sources)
    for node in nodes:
        first = node in fed and node in learned and node not in downstream
        if first and isinstance(values[node], Tensor) and floating(values[node]):
            sources.append(node)
            downstream |= reach(nodes, [node])
    return sources


def _held(graph: Graph, nodes: list[fx.Node], sources: list[fx.Node], values: Values) -> list[fx.Node]:
    """Where derivatives begin again behind no_grad or detach: what frozen parameters have made of a source."""
    learned = reach(nodes, [n for n in graph.parameter_nodes if floating(values[n])])
    follows = reach([node for node in nodes if op_name(node) not in _SHAPED], sources)
    begins = {
        argument: None
        for node in nodes
        if carries(node, values)
        for argument in node.all_input_nodes
        if argument in follows & learned and argument not in sources and not carries(argument, values)
    }
    return [node for node in begins if isinstance(values[node], Tensor) and floating(values[node])]


_JOINING = {"add", "sub", "cat", "clone", "view", "_unsafe_view", "alias", "expand", "unsqueeze", "_to_copy", "mul"}


def _stems(sources: list[fx.Node], sink: fx.Node, values: Values) -> list[tuple[fx.Node, ...]]:
    """Merge sources that meet by addition or concatenation alone into the node where they have met."""
    spread = {source: _trivially_reached(source) for source in sources}
    stems: list[tuple[fx.Node, ...]] = []
    left = list(sources)
    while left:
        first = left.pop(0)
        group = [first, *(s for s in left if spread[first] & spread[s])]
        meeting = [n for n in spread[first] if all(n in spread[s] for s in group)]
        if len(group) > 1 and meeting:
            order = {n: i for i, n in enumerate(first.graph.nodes)}
            stems.append((min(meeting, key=lambda n: order[n]),))
            left = [s for s in left if s not in group]
        else:
            stems.append((first,))
    return stems


def _trivially_reached(source: fx.Node) -> set[fx.Node]:
    found, frontier = {source}, [source]
    while frontier:
        for user in frontier.pop().users:
            if user not in found and op_name(user) in _JOINING:
                found.add(user)
                frontier.append(user)
    return found
