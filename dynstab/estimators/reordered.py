"""An operator whose entries are listed in another order."""

from __future__ import annotations

import torch
from torch import Tensor

from dynstab.linear.operator import LinearOperator


class Reordered(LinearOperator):
    """P J Q^T: entry i of an image is entry `rows[i]` of J's, entry i of a column is J's entry `cols[i]`.

    Args:
        rows, cols: permutations, None for none.
    """

    def __init__(self, operator: LinearOperator, rows: Tensor | None = None, cols: Tensor | None = None) -> None:
        self.operator, self.out, self.into = operator, rows, cols
        self.samples, self.rows, self.cols = operator.samples, operator.rows, operator.cols
        self.dtype, self.device = operator.dtype, operator.device

    def matmat(self, columns: Tensor) -> Tensor:
        return _taken(self.operator.matmat(_put(columns, self.into)), self.out)

    def rmatmat(self, columns: Tensor) -> Tensor:
        return _taken(self.operator.rmatmat(_put(columns, self.out)), self.into)


def _taken(columns: Tensor, order: Tensor | None) -> Tensor:
    return columns if order is None else columns[:, order]


def _put(columns: Tensor, order: Tensor | None) -> Tensor:
    if order is None:
        return columns
    moved = torch.empty_like(columns)
    moved[:, order] = columns
    return moved
