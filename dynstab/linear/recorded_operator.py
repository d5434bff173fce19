"""The Jacobian of one run that autograd recorded: for functions that no trace can follow.

The run happens once; afterwards the function is not called again, so that what it keeps from call to call stays
as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dynstab.linear.layout import Layout
from dynstab.linear.operator import JacobianOperator

Tensors = tuple[Tensor, ...]


class RecordedOperator(JacobianOperator):
    """df/dx at x, by backward and double backward over one recorded run.

    Args:
        function: tensors -> tensors. inputs: x. reason: why this route was taken, for the report.

    Attributes:
        outputs: f(x).
    """

    def __init__(self, function: Callable[..., Tensors], inputs: Tensors, reason: str) -> None:
        with torch.enable_grad():
            self._leaves = tuple(tensor.detach().clone().requires_grad_() for tensor in inputs)
            self._outputs = function(*self._leaves)
            self._alive = [i for i, output in enumerate(self._outputs) if output.requires_grad]
            # Not zeros, at which some backward formulas have no derivative.
            self._dummies = [torch.ones_like(self._outputs[i]).requires_grad_() for i in self._alive]
            self._pulled = torch.autograd.grad(
                [self._outputs[i] for i in self._alive],
                self._leaves,
                self._dummies,
                create_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
        self._reason = reason
        source = Layout(shapes=tuple(tensor.shape for tensor in inputs))
        target = Layout(shapes=tuple(tensor.shape for tensor in self._outputs))
        super().__init__(source, target, inputs[0].dtype, inputs[0].device)

    @property
    def outputs(self) -> Tensors:
        return tuple(output.detach() for output in self._outputs)

    @property
    def routes(self) -> dict[str, int]:
        return {f"autograd: {self._reason}": 1}

    def push_tensors(self, tangents: Tensors) -> Tensors:
        self.products += self.samples * len(tangents[0])
        rows = [i for i, pulled in enumerate(self._pulled) if pulled.requires_grad]
        results = [output.new_zeros((len(tangents[0]), *output.shape)) for output in self._outputs]
        if rows:
            moved = _swept([self._pulled[i] for i in rows], self._dummies, [tangents[i] for i in rows])
            for i, tangent in zip(self._alive, moved, strict=True):
                results[i] = tangent
        return tuple(results)

    def pull_tensors(self, cotangents: Tensors) -> Tensors:
        self.products += self.samples * len(cotangents[0])
        alive = [self._outputs[i] for i in self._alive]
        return _swept(alive, self._leaves, [cotangents[i] for i in self._alive])


def _swept(outputs: Sequence[Tensor], inputs: Sequence[Tensor], cotangents: Sequence[Tensor]) -> Tensors:
    """Gradients (k, *shape) for k cotangents each, one after the other: what no trace follows no vmap does."""
    rows = [
        torch.autograd.grad(outputs, inputs, one, retain_graph=True, allow_unused=True, materialize_grads=True)
        for one in zip(*cotangents, strict=True)
    ]
    return tuple(torch.stack(column).detach() for column in zip(*rows, strict=True))
