"""A function captured once, run and linearised at one point after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, fx

from dynstab.capture.capture import capture_function
from dynstab.linear.evaluator import Evaluator
from dynstab.linear.plan import Plan
from dynstab.linear.tape import Tape

Tensors = tuple[Tensor, ...]


class CapturedMap:
    """The graph of f(*moving, *held), and its tape in the tensors that move.

    Args:
        f: pure, of tensors; its floating-point results, in order, are the output. example: its arguments.
        moving: how many of them, from the first on, f is differentiated by; None is all.

    Attributes:
        target: the nodes of the output.
        branches: where f turned values that depend on its arguments into Python numbers, "net.py:12": the graph
            holds one of the ways that it may take.

    Raises:
        CaptureError, InputError: see `capture_function`.
    """

    def __init__(self, f: Callable[..., Any], example: Tensors, *, moving: int | None = None) -> None:
        graph = capture_function(f, example)
        self.branches = graph.choices.branches
        self._evaluate = Evaluator(graph.module)
        self._parameters = [tensor.detach() for tensor in graph.parameters.values()]
        self._source = tuple(graph.input_nodes)[:moving]
        self._plan: Plan | None = None
        first = self.values(example)
        self.target = tuple(node for node in graph.outputs if is_floating(first[node]))

    def values(self, arguments: Tensors) -> dict[fx.Node, Any]:
        """What every node of the graph is there."""
        return self._evaluate([*self._parameters, *arguments])

    def outputs(self, values: dict[fx.Node, Any]) -> Tensors:
        return tuple(values[node] for node in self.target)

    def tape(self, values: dict[fx.Node, Any]) -> Tape:
        """The linearisation of the run that gave `values`."""
        tape = Tape(self._evaluate.nodes, self._source, self.target, values, self._plan)
        self._plan = tape.plan
        return tape


def is_floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
