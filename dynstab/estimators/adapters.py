"""Operators made from operators: the transpose, and half precision seen in float32."""

from __future__ import annotations

import torch
from torch import Tensor

from dynstab.estimators.orthogonal import HALF
from dynstab.linear.operator import LinearOperator


class Transposed(LinearOperator):
    """J^T: pushes are pulls."""

    def __init__(self, operator: LinearOperator) -> None:
        self.operator = operator
        self.samples, self.rows, self.cols = operator.samples, operator.cols, operator.rows
        self.dtype, self.device = operator.dtype, operator.device

    def matmat(self, columns: Tensor) -> Tensor:
        return self.operator.rmatmat(columns)

    def rmatmat(self, columns: Tensor) -> Tensor:
        return self.operator.matmat(columns)


class Promoted(LinearOperator):
    """A half-precision operator on float32 blocks: bases cannot be kept orthogonal in half precision."""

    def __init__(self, operator: LinearOperator) -> None:
        self.operator = operator
        self.samples, self.rows, self.cols = operator.samples, operator.rows, operator.cols
        self.dtype, self.device = torch.float32, operator.device

    def matmat(self, columns: Tensor) -> Tensor:
        return self.operator.matmat(columns.to(self.operator.dtype)).float()

    def rmatmat(self, columns: Tensor) -> Tensor:
        return self.operator.rmatmat(columns.to(self.operator.dtype)).float()


def workable(operator: LinearOperator) -> LinearOperator:
    """The operator in a dtype in which orthogonal bases can be kept."""
    return Promoted(operator) if operator.dtype in HALF else operator


def rounding_of(operator: LinearOperator) -> float:
    """Relative rounding of one product: eps of the dtype in which it is computed."""
    inner = operator.operator if isinstance(operator, Promoted | Transposed) else operator
    return rounding_of(inner) if inner is not operator else torch.finfo(operator.dtype).eps
