"""The Jacobian of a step as an operator, swept over a tape in chunks that fit into memory."""

from __future__ import annotations

import torch
from torch import Tensor

from dynstab.linear.layout import Layout
from dynstab.linear.memory import in_chunks
from dynstab.linear.operator import JacobianOperator, LinearOperator, RelaidOperator
from dynstab.linear.tape import Tape


class TapeOperator(JacobianOperator):
    """d target / d source of a recorded run.

    Args:
        source, target: the layouts of the tape's source and target.
        dtype: of the tangents given and returned; None is that of the source. Inside, each
            tangent has the dtype of the value that it belongs to.
        budget: bytes that a sweep may use; None reads what is free each time.
    """

    def __init__(
        self,
        tape: Tape,
        source: Layout,
        target: Layout,
        *,
        dtype: torch.dtype | None = None,
        budget: int | None = None,
    ) -> None:
        first = tape.source_values[0]
        super().__init__(source, target, dtype or first.dtype, first.device)
        self.tape, self.budget = tape, budget

    @property
    def routes(self) -> dict[str, int]:
        """How many ops were linearised which way."""
        return self.tape.routes

    @property
    def bytes_per_tangent(self) -> int:
        return self.tape.plan.peak_bytes

    def push_tensors(self, tangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """J t, chunk by chunk.

        Raises:
            MemoryBudgetError: not even one tangent fits.
        """
        inside = self._counted(_as(tangents, self.tape.source_values))
        return self._outside(in_chunks(self.tape.push, inside, self.bytes_per_tangent, budget=self.budget))

    def pull_tensors(self, cotangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """J^T c, chunk by chunk.

        Raises:
            MemoryBudgetError: not even one cotangent fits.
        """
        inside = self._counted(_as(cotangents, self.tape.target_values))
        return self._outside(in_chunks(self.tape.pull, inside, self.bytes_per_tangent, budget=self.budget))

    def _counted(self, moving: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        self.products += self.samples * moving[0].shape[0]
        return moving

    def _outside(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(tensor.to(self.dtype) for tensor in tensors)


def _as(moving: tuple[Tensor, ...], like: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor.to(dtype=value.dtype, device=value.device) for tensor, value in zip(moving, like, strict=True))


def on_tape(operator: LinearOperator) -> TapeOperator | None:
    """The operator itself, or the one behind other layouts, if it sweeps over a tape."""
    while isinstance(operator, RelaidOperator):
        operator = operator.operator
    return operator if isinstance(operator, TapeOperator) else None
