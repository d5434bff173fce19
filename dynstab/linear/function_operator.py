"""The Jacobian of a function that cannot be captured: torch.func, op by op at every product."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dynstab.linear.layout import Layout
from dynstab.linear.memory import in_chunks
from dynstab.linear.operator import JacobianOperator

Tensors = tuple[Tensor, ...]
# What vmap raises where it cannot batch: control flow on values, in-place writes, random numbers.
_REFUSALS = (RuntimeError, NotImplementedError, TypeError, ValueError)


class FunctionOperator(JacobianOperator):
    """df/dx at x by vmap(jvp) and vmap(vjp), one tangent at a time where vmap refuses.

    Args:
        function: tensors -> tensors. inputs: x. outputs: f(x), for its shapes.
        reason: why this route was taken, for the report.
    """

    def __init__(self, function: Callable[..., Tensors], inputs: Tensors, outputs: Tensors, reason: str) -> None:
        source = Layout(shapes=tuple(tensor.shape for tensor in inputs))
        target = Layout(shapes=tuple(tensor.shape for tensor in outputs))
        super().__init__(source, target, inputs[0].dtype, inputs[0].device)
        self._function, self._inputs, self._reason = function, inputs, reason
        self._bytes = 4 * sum(t.numel() * t.element_size() for t in (*inputs, *outputs))

    @property
    def routes(self) -> dict[str, int]:
        return {f"torch.func: {self._reason}": 1}

    def push_tensors(self, tangents: Tensors) -> Tensors:
        def one(*moving: Tensor) -> Tensors:
            return torch.func.jvp(self._function, self._inputs, moving)[1]

        return in_chunks(lambda chunk: _mapped(one, self._push_one, chunk), tangents, self._bytes)

    def pull_tensors(self, cotangents: Tensors) -> Tensors:
        transpose = torch.func.vjp(self._function, *self._inputs)[1]

        def one(*moving: Tensor) -> Tensors:
            return transpose(moving)

        return in_chunks(lambda chunk: _mapped(one, one, chunk), cotangents, self._bytes)

    def _push_one(self, *moving: Tensor) -> Tensors:
        """By double backward, for a function with an op that has no forward mode."""
        try:
            return torch.func.jvp(self._function, self._inputs, moving)[1]
        except _REFUSALS:
            return torch.autograd.functional.jvp(self._function, self._inputs, moving)[1]


def _mapped(one: Callable[..., Tensors], safe: Callable[..., Tensors], chunk: Tensors) -> Tensors:
    try:
        return torch.func.vmap(one)(*chunk)
    except _REFUSALS:
        rows = [safe(*row) for row in zip(*chunk, strict=True)]
        return tuple(torch.stack(column) for column in zip(*rows, strict=True))
