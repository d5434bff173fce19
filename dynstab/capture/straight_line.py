"""Any function of tensors as one list of ATen calls, with as little Python as there can be between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg

from dynstab.core.errors import CaptureError

Tensors = tuple[Tensor, ...]


@torch.no_grad()
def traced_line(function: Callable[..., Tensors], example: Tensors) -> fx.GraphModule:
    """The calls that `function(*example)` makes, without gradients, to be made again on other tensors.

    What depends on no argument is computed once, and choices that the function makes on values are those
    made at the example: compare the two now and then.

    Raises:
        CaptureError: it cannot be traced.
    """
    try:
        traced = make_fx(function, _error_on_data_dependent_ops=False)(*example)
    except RuntimeError as error:
        raise CaptureError(f"the function cannot be traced ({error})") from error
    _fold(traced)
    return traced


def _fold(traced: fx.GraphModule) -> None:
    """Replace what depends on no argument by its value."""
    values: dict[fx.Node, Any] = {}
    moving: set[fx.Node] = set()
    for node in traced.graph.nodes:
        if node.op in ("placeholder", "output") or any(used in moving for used in node.all_input_nodes):
            moving.add(node)
        elif node.op == "get_attr":
            values[node] = getattr(traced, node.target)
        else:
            args, kwargs = map_arg((node.args, node.kwargs), lambda used: values[used])
            values[node] = node.target(*args, **kwargs)
    for number, node in enumerate(reversed(list(traced.graph.nodes))):
        if node in moving or node.op == "get_attr":
            continue
        if isinstance(values[node], Tensor) and any(user in moving for user in node.users):
            traced.register_buffer(f"constant_{number}", values[node])
            with traced.graph.inserting_before(node):
                constant = traced.graph.get_attr(f"constant_{number}")
            node.replace_all_uses_with(constant, lambda user: user in moving)
        # In-place ops on constants count as effects, which the usual elimination of dead code spares.
        if not node.users:
            traced.graph.erase_node(node)
    traced.graph.eliminate_dead_code()
    traced.recompile()


@torch.no_grad()
def straight_line(traced: fx.GraphModule, example: Tensors) -> Callable[..., Tensors]:
    """The calls of a traced line by torch's own bindings, which parse arguments three times as fast as op overloads.

    By the overloads where a binding refuses or gives anything else.
    """
    copy = fx.Graph()
    held: dict[fx.Node, fx.Node] = {}
    for node in traced.graph.nodes:
        held[node] = copy.node_copy(node, lambda used: held[used])
        held[node].target = _binding(node.target)
    quick = fx.GraphModule(traced, copy)
    expected = traced.forward(*example)
    try:
        found = quick.forward(*example)
    except (TypeError, RuntimeError):  # a binding that takes its arguments in another order
        return traced.forward
    same = all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(found, expected, strict=True))
    return quick.forward if same else traced.forward


def _binding(target: Any) -> Any:
    packet = getattr(target, "overloadpacket", None)
    if packet is None:
        return target
    return getattr(torch, packet.__name__, None) or getattr(Tensor, packet.__name__, None) or target
