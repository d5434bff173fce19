"""How the tensors of a state become columns of a matrix, one matrix per independent input."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The shapes of a state's tensors, and which dimension of each counts the inputs.

    Attributes:
        shapes: of each tensor, inputs included.
        samples: how many inputs do not influence each other; 1 where they do (or there is one).
        sample_dims: that dimension in each tensor; ignored where samples is 1.
    """

    shapes: tuple[torch.Size, ...]
    samples: int = 1
    sample_dims: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Entries of the state for one input."""
        return sum(prod(shape) for shape in self.shapes) // self.samples

    def flatten(self, tensors: tuple[Tensor, ...]) -> Tensor:
        """Tensors (k, *shape) each -> columns (samples, size, k)."""
        rows = []
        for position, tensor in enumerate(tensors):
            k = tensor.shape[0]
            if self.samples > 1:
                tensor = tensor.movedim(self.sample_dims[position] + 1, 0)
                rows.append(tensor.reshape(self.samples, k, -1))
            else:
                rows.append(tensor.reshape(1, k, -1))
        flat = rows[0] if len(rows) == 1 else torch.cat(rows, dim=2)
        return flat.transpose(1, 2)

    def unflatten(self, columns: Tensor) -> tuple[Tensor, ...]:
        """Columns (samples, size, k) -> tensors (k, *shape)."""
        k = columns.shape[2]
        flat = columns.transpose(1, 2)
        tensors, start = [], 0
        for position, shape in enumerate(self.shapes):
            length = prod(shape) // self.samples
            part = flat[:, :, start : start + length]
            start += length
            if self.samples > 1:
                dim = self.sample_dims[position]
                rest = shape[:dim] + shape[dim + 1 :]
                tensors.append(part.reshape(self.samples, k, *rest).movedim(0, dim + 1))
            else:
                tensors.append(part.reshape(k, *shape))
        return tuple(tensors)
