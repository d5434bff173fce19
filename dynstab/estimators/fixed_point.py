"""The fixed point of a map, or the rest of a field, near a guess: Newton's iteration with dense Jacobians."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dynstab.core.errors import InputError
from dynstab.linear.linearizer import Linearizer

_ITERATIONS = 50


@dataclass(frozen=True, kw_only=True, eq=False)
class FixedPoint:
    """x* with f(x*) = x*, or f(x*) = 0 of a field.

    Attributes:
        state: x*. jacobian: of f there, (n, n) float64. residual: ||f(x*) - x*||. found: it is rounding.
    """

    state: Tensor
    jacobian: Tensor
    residual: float
    found: bool


def fixed_point(function: Callable[[Tensor], Tensor], near: Tensor, *, field: bool) -> FixedPoint:
    """By Newton's iteration, halved where it would increase the residual.

    Raises:
        InputError: `function` does not map the state to its like.
    """
    near = near.detach()
    linearizer, shift = Linearizer(function, near), 0.0 if field else 1.0

    def linearised(x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            image, operator = linearizer(x)
        if not isinstance(image, Tensor) or image.shape != near.shape:
            got = tuple(image.shape) if isinstance(image, Tensor) else "several tensors"
            raise InputError(f"a state {tuple(near.shape)} is mapped to {got}", expected="a state of the same shape")
        return (image - shift * x).double(), operator.dense()[0].double()

    state = near
    gap, jacobian = linearised(state)
    for _ in range(_ITERATIONS):
        size = float(gap.norm())
        # Below rounding of the state, or where nothing can be computed, there is no better point.
        if not size < torch.inf or size <= _rounding(state, jacobian):
            break
        identity = torch.eye(len(jacobian), dtype=torch.float64, device=jacobian.device)
        move = torch.linalg.lstsq(jacobian - shift * identity, gap.reshape(-1, 1)).solution.reshape(near.shape)
        for share in (1.0, 0.5, 0.25, 0.125, 0.0625):
            trial = (state.double() - share * move).to(near.dtype)
            new_gap, new_jacobian = linearised(trial)
            if float(new_gap.norm()) < size:
                break
        else:
            break
        state, gap, jacobian = trial, new_gap, new_jacobian
    residual = float(gap.norm())
    return FixedPoint(
        state=state, jacobian=jacobian, residual=residual, found=residual <= 100 * _rounding(state, jacobian)
    )


def _rounding(state: Tensor, jacobian: Tensor) -> float:
    eps = torch.finfo(state.dtype).eps
    return 4 * eps * (1 + float(torch.linalg.matrix_norm(jacobian))) * (float(state.double().norm()) + eps)
