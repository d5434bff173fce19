"""Jacobians of functions and modules.

J = dynstab.jacobian(f, x)
J.push(tangents)     # (k, *x.shape) -> (k, *f(x).shape)
J.pull(cotangents)   # (k, *f(x).shape) -> (k, *x.shape)
J.dense()            # (f(x).numel(), x.numel())
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dynstab.core.errors import InputError
from dynstab.linear.linearizer import Linearizer
from dynstab.linear.operator import JacobianOperator


class Jacobian:
    """df/dx at one point, as a user sees it.

    Attributes:
        operator: the same as the estimators see it (one sample; columns instead of shapes).
        shape: (rows, cols) of the matrix.
    """

    def __init__(self, operator: JacobianOperator) -> None:
        self.operator = operator

    @property
    def shape(self) -> tuple[int, int]:
        return self.operator.shape

    @property
    def routes(self) -> dict[str, int]:
        """How many ops were linearised which way: "rule", "double backward: aten.foo", "torch.func: why"."""
        return self.operator.routes

    def push(self, tangents: Tensor) -> Tensor:
        """J t for k tangents: (k, *x.shape) -> (k, *f(x).shape)."""
        _check_moving(tangents, self.operator.source.shapes[0], "tangents")
        return self.operator.push(tangents)

    def pull(self, cotangents: Tensor) -> Tensor:
        """J^T c for k cotangents: (k, *f(x).shape) -> (k, *x.shape)."""
        _check_moving(cotangents, self.operator.target.shapes[0], "cotangents")
        return self.operator.pull(cotangents)

    def dense(self) -> Tensor:
        """The matrix, (f(x).numel(), x.numel())."""
        return self.operator.dense()[0]

    def __repr__(self) -> str:
        rows, cols = self.shape
        return f"<Jacobian {rows} x {cols}, {str(self.operator.dtype).removeprefix('torch.')}>"


def jacobian(f: Callable[..., Any], x: Tensor) -> Jacobian:
    """The Jacobian of f at x, matrix-free.

    Args:
        f: a function or a module that takes x and returns one tensor of any shape.
        x: a floating-point tensor of any shape. A first dimension that counts inputs is part of it.

    Raises:
        InputError: x holds no floating-point numbers, f rejects it, f does not return exactly one
            floating-point tensor, or that does not depend on x.
    """
    if not isinstance(x, Tensor):
        raise InputError(f"x is of type {type(x).__name__}", expected="a tensor", remedy="use torch.as_tensor(x)")
    x = x.detach()
    _, operator = Linearizer(f, x)(x)
    if len(operator.target.shapes) != 1:
        raise InputError(
            f"f returns {len(operator.target.shapes)} floating-point tensors",
            expected="one",
            remedy="return the one of interest, or torch.cat of them",
        )
    return Jacobian(operator)


def _check_moving(moving: Tensor, shape: torch.Size, name: str) -> None:
    if moving.ndim != len(shape) + 1 or moving.shape[1:] != shape:
        raise InputError(
            f"{name} of shape {tuple(moving.shape)}",
            expected=f"({', '.join(['k', *map(str, shape)])})",
            remedy="a single one needs a leading dimension of 1",
        )
