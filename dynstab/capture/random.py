"""Random ops in a graph become the draws that they once made, so that every run is the same function."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy
import torch
from torch import Tensor, fx

aten = torch.ops.aten


def seed_everything(seed: int) -> None:
    """Seed torch's, Python's and NumPy's own generators: each run of a forward draws the same numbers."""
    torch.manual_seed(seed)
    random.seed(seed)
    numpy.random.seed(seed % 2**32)


def drawn_outside_torch(seed: int) -> tuple[str, ...]:
    """Whose generator was used since `seed_everything(seed)`: "Python", "NumPy"."""
    python = random.getstate() != random.Random(seed).getstate()
    fresh, now = numpy.random.RandomState(seed % 2**32).get_state(), numpy.random.get_state()
    moved = any(not numpy.array_equal(a, b) for a, b in zip(fresh, now, strict=True))
    return (*(("Python",) if python else ()), *(("NumPy",) if moved else ()))


class _Recorder(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.draws: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if is_random(n):
            self.draws[n] = value
        return value


def is_random(node: fx.Node) -> bool:
    """Whether a node draws from the random state."""
    return isinstance(node.target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in node.target.tags


def freeze_random(graph_module: fx.GraphModule, arguments: Sequence[Tensor]) -> int:
    """Replace each random op by its draw in one run under the current seed; how many there were.

    A dropout stays a function of its input: the input times the recorded mask.
    """
    if not any(is_random(node) for node in graph_module.graph.nodes):
        return 0
    recorder = _Recorder(graph_module)
    with torch.no_grad():
        recorder.run(*arguments)
    for number, (node, draw) in enumerate(recorder.draws.items()):
        _replace(graph_module, node, draw, f"_draw_{number}")
        # Dead code of this kind is kept by fx, which takes it for impure, and would move the user's random state.
        for dead in (*node.users, node):
            graph_module.graph.erase_node(dead)
    graph_module.graph.eliminate_dead_code()
    graph_module.recompile()
    return len(recorder.draws)


def _replace(graph_module: fx.GraphModule, node: fx.Node, draw: Any, name: str) -> None:
    graph = graph_module.graph
    with graph.inserting_before(node):
        if node.target is aten.native_dropout.default:
            rate = float(node.args[1])  # type: ignore[arg-type]
            scale = draw[1].to(draw[0].dtype) / max(1.0 - rate, 1e-38)
            graph_module.register_buffer(name, scale)
            product = graph.call_function(aten.mul.Tensor, (node.args[0], graph.get_attr(name)))
            product.meta = dict(node.meta)
            for user in list(node.users):
                if user.args[1] == 0:
                    user.replace_all_uses_with(product)
                else:
                    graph_module.register_buffer(f"{name}_mask", draw[1])
                    with graph.inserting_before(user):
                        user.replace_all_uses_with(graph.get_attr(f"{name}_mask"))
            return
        if not isinstance(draw, Tensor):
            raise TypeError(f"{node.target} draws more than one tensor, which cannot be replayed")
        graph_module.register_buffer(name, draw)
        constant = graph.get_attr(name)
    constant.meta = dict(node.meta)
    node.replace_all_uses_with(constant)
