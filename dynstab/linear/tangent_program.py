"""A map and the push of its tangents as one straight line of code, for orbits of many short steps.

A tape works out each op's derivative anew at every point, in Python. Where a step is a hundred small ops
and is taken ten thousand times, that bookkeeping costs more than the numbers. Here the recorded run and
the sweep over its tape are traced together: what is left is one list of ATen calls that gives the next
state and J V.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dynstab.capture.capture import capture_function
from dynstab.capture.straight_line import straight_line, traced_line
from dynstab.core.errors import CaptureError, InputError
from dynstab.linear.agreement import close, nearby
from dynstab.linear.evaluator import Evaluator
from dynstab.linear.tape import Tape

aten = torch.ops.aten

_PRODUCTS = (aten.mm.default, aten.bmm.default, aten.addmm.default, aten.baddbmm.default)


class TangentProgram:
    """(x, *context, V) -> (f(x, *context), df/dx V), x and V of fixed shapes.

    The line is compared with the tape that it was made from, and with f itself, at calls 1, 2, 4, 8, ...

    Args:
        f: of a tensor and further tensors that do not move; pure. example: its arguments.
        k: tangents, V is (k, *x.shape).

    Attributes:
        has_products: whether matrices are multiplied on the way.

    Raises:
        InputError, CaptureError: f cannot be captured, branches on values, does not depend on x, or takes another
            way than its graph at a later call.
    """

    def __init__(self, f: Callable[..., Tensor], example: tuple[Tensor, ...], k: int) -> None:
        self._f, self._calls, self.k = f, 0, k
        graph = capture_function(f, example)
        if graph.choices.branches:
            raise CaptureError(
                f"the function branches on values ({', '.join(graph.choices.branches[:3])})",
                expected="a straight line of torch operations",
                remedy="write the branch with torch.where",
            )
        self._evaluate = Evaluator(graph.module)
        self._parameters = [tensor.detach() for tensor in graph.parameters.values()]
        self._source, self._target = (graph.input_nodes[0],), (graph.outputs[0],)
        if not self._tape(example).depends:
            raise InputError(
                "what f returns does not depend on x by a derivative", expected="a differentiable function of x"
            )
        tangents = torch.randn(k, *example[0].shape, generator=torch.Generator().manual_seed(0)).to(example[0])
        line = traced_line(self.recorded, (*example, tangents))
        self.has_products = any(node.target in _PRODUCTS for node in line.graph.nodes)
        self._run = straight_line(line, (*example, tangents))
        for (point,) in nearby(example[:1]):
            if self._defined(point, *example[1:]):
                self._compare((point, *example[1:], tangents), self._run(point, *example[1:], tangents))

    @torch.no_grad()
    def __call__(self, *arguments: Tensor) -> tuple[Tensor, Tensor]:
        """x, context and V -> f(x, context) and J V."""
        self._calls += 1
        after, moved = self._run(*arguments)
        if self._calls & (self._calls - 1) == 0:
            self._compare(arguments, (after, moved))
        return after, moved

    @torch.no_grad()
    def recorded(self, *arguments: Tensor) -> tuple[Tensor, Tensor]:
        """The same, by the recorded run and the sweep over its tape."""
        tape = self._tape(arguments[:-1])
        return tape.target_values[0], tape.push((arguments[-1],))[0]

    @torch.no_grad()
    def _tape(self, arguments: tuple[Tensor, ...]) -> Tape:
        values = self._evaluate([*self._parameters, *arguments])
        return Tape(self._evaluate.nodes, self._source, self._target, values)

    @torch.no_grad()
    def _defined(self, *arguments: Tensor) -> bool:
        """Whether a point lies in f's domain; what f raises outside of it is f's own affair."""
        try:
            return isinstance(self._f(*arguments), Tensor)
        except Exception:
            return False

    @torch.no_grad()
    def _compare(self, arguments: tuple[Tensor, ...], found: tuple[Tensor, ...]) -> None:
        expected = (self._f(*arguments[:-1]), self.recorded(*arguments)[1])
        if not all(close(a, b) for a, b in zip(found, expected, strict=True)):
            raise CaptureError(
                f"the function took another way at call {self._calls} than the one that was captured",
                expected="a function without branches on values",
                remedy="write the branch with torch.where",
            )
