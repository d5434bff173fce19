"""The primal run: every value of the graph at given inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx


class Evaluator:
    """A graph whose call gives the value of every node, as straight-line code."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        self.nodes = tuple(node for node in graph_module.graph.nodes if node.op != "output")
        copy = fx.Graph()
        held: dict[fx.Node, fx.Node] = {}
        for node in self.nodes:
            held[node] = copy.node_copy(node, lambda used: held[used])
        copy.output(tuple(held[node] for node in self.nodes))
        self._run = fx.GraphModule(graph_module, copy)

    @torch.no_grad()
    def __call__(self, arguments: Sequence[Any]) -> dict[fx.Node, Any]:
        """Values of the original graph's nodes; `arguments` are those of its placeholders."""
        return dict(zip(self.nodes, self._run.forward(*arguments), strict=True))


def evaluate(graph_module: fx.GraphModule, arguments: Sequence[Any]) -> dict[fx.Node, Any]:
    """One run of the graph without gradients: node -> value."""
    return Evaluator(graph_module)(arguments)
