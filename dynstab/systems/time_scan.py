"""Linear recurrences that a model writes out: h_{t+1} = a_t * h_t + b_t, entry by entry, found in its graph.

State-space layers (S4D, LRU, Mamba) scan in a loop over time. Each loop is a chain of multiply-adds between tensors of
one shape: its multipliers are the discretised transition, whose moduli against the unit circle decide what
is remembered. Several layers that scan the same length advance together: each is driven by what the layer below
gave, the Jacobian is diagonal, and the exponents are those of all layers. Complex states are pairs of real numbers.

References:
    Gu, Goel & Re (2022), S4; Orvieto et al. (2023), LRU; Gu & Dao (2023), Mamba.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from dynstab.capture import capture
from dynstab.core.errors import DynstabError
from dynstab.linear.driven import Tensors
from dynstab.linear.evaluator import evaluate
from dynstab.systems.dependence import op_name
from dynstab.systems.time_recurrence import Bound, Recurrence

_SHORTEST = 3


class Link(NamedTuple):
    """after = multiplier * before + added."""

    before: fx.Node
    multiplier: fx.Node
    added: fx.Node
    after: fx.Node


def scan_recurrence(
    bound: Bound, args: tuple[Any, ...], kwargs: dict[str, Any], name: str, seed: int
) -> Recurrence | None:
    """All scans of the greatest length in the model's graph as one recurrence; None where it has none."""
    module: nn.Module = bound.module
    try:
        graph, _, _ = capture(module, args, kwargs, dtype=bound.dtype, device=bound.device, seed=seed)
    except DynstabError:
        return None
    values = evaluate(graph.module, graph.arguments())
    chains = _chains(list(graph.module.graph.nodes), values)
    if not chains:
        return None
    length = max(map(len, chains))
    chosen = [chain for chain in chains if len(chain) == length]
    places = list(dict.fromkeys(chain[0].after.meta.get("path") or name for chain in chosen))
    batch = {values[chain[0].after].shape[0] for chain in chosen}
    return Recurrence(
        name=places[0] if len(places) == 1 else name,
        step=_step,
        start=tuple(_real(values[chain[0].before], values[chain[0].after]) for chain in chosen),
        inputs=tuple(tensor for chain in chosen for tensor in _drive(chain, values)),
        length=length,
        sample_dim=0 if len(batch) == 1 and values[chosen[0][0].after].ndim > 1 else None,
        expected={t + 1: tuple(_real(values[chain[t].after]) for chain in chosen) for t in range(length)},
        parameters=bound.parameters,
        notes=(f"scans h = a * h + b of {length} steps in {', '.join(places)}: the state of each given its inputs",),
    )


def _step(state: Tensors, inputs: Tensors) -> Tensors:
    return tuple(_multiply(inputs[2 * i], h) + inputs[2 * i + 1] for i, h in enumerate(state))


def _multiply(multiplier: Tensor, h: Tensor) -> Tensor:
    if multiplier.ndim == h.ndim:
        return multiplier * h
    # A pair of real numbers for a complex one: the multiplier holds its parts apart from the state's.
    real, imaginary = multiplier[..., 0, :], multiplier[..., 1, :]
    first, second = h[..., 0], h[..., 1]
    return torch.stack(
        [real[..., 0] * first - imaginary[..., 0] * second, imaginary[..., 0] * first + real[..., 0] * second], dim=-1
    )


def _drive(chain: list[Link], values: Mapping[fx.Node, Any]) -> tuple[Tensor, Tensor]:
    """(a, b) over time, broadcast to the state's shape."""
    shape = values[chain[0].after].shape
    multipliers = torch.stack([values[link.multiplier].expand(shape) for link in chain])
    added = torch.stack([values[link.added].expand(shape) for link in chain])
    if not values[chain[0].after].is_complex():
        return multipliers, added
    multipliers = multipliers.to(values[chain[0].after].dtype)
    parts = torch.stack([multipliers.real[..., None], multipliers.imag[..., None]], dim=-2)
    return parts, torch.view_as_real(added.to(values[chain[0].after].dtype).resolve_conj())


def _real(tensor: Tensor, like: Tensor | None = None) -> Tensor:
    if like is not None:
        tensor = tensor.to(like.dtype).expand(like.shape)
    return torch.view_as_real(tensor.resolve_conj()).clone() if tensor.is_complex() else tensor.clone()


def _chains(nodes: list[fx.Node], values: Mapping[fx.Node, Any]) -> list[list[Link]]:
    """Maximal chains of links, each of at least three."""
    links = {link.after: link for node in nodes for link in [_link(node, values)] if link is not None}
    followed = {link.before for link in links.values()}
    chains = []
    for last in (node for node in links if node not in followed):
        chain: list[Link] = []
        node: fx.Node = last
        while node in links:
            chain.append(links[node])
            node = links[node].before
        if len(chain) >= _SHORTEST and not _feeds_itself(chain, nodes):
            chains.append(chain[::-1])
    return chains


def _feeds_itself(chain: list[Link], nodes: list[fx.Node]) -> bool:
    """Whether a multiplier or an input depends on the state: then the step is no multiplication (a gated cell)."""
    depends = {link.before for link in chain}
    for node in nodes:
        if any(argument in depends for argument in node.all_input_nodes):
            depends.add(node)
    return any(part in depends for link in chain for part in (link.multiplier, link.added))


def _link(node: fx.Node, values: Mapping[fx.Node, Any]) -> Link | None:
    """node = multiplier * before + added, where the value before has the shape of the one after."""
    if node.op != "call_function" or op_name(node) != "add" or node.kwargs.get("alpha", 1) != 1:
        return None
    shape = values[node].shape if isinstance(values[node], Tensor) else None
    options = []
    for product, added in (node.args[:2], node.args[1::-1]):
        if not (isinstance(product, fx.Node) and isinstance(added, fx.Node) and op_name(product) == "mul"):
            continue
        for before, multiplier in (product.args[:2], product.args[1::-1]):
            if not (isinstance(before, fx.Node) and isinstance(multiplier, fx.Node)):
                continue
            if isinstance(values[before], Tensor) and values[before].shape == shape:
                options.append(Link(before, multiplier, added, node))
    # The state is itself the result of a link, or the constant that the scan starts from.
    return next((o for o in options if _is_sum(o.before)), None) or next(
        (o for o in options if not o.before.all_input_nodes and o.before.op == "call_function"), None
    )


def _is_sum(node: fx.Node) -> bool:
    return node.op == "call_function" and op_name(node) == "add"
