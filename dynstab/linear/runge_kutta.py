"""Explicit Runge-Kutta steps of x' = f(t, x), differentiable, with their stability functions.

One step of size h from (t, x) evaluates s stages k_i = f(t + c_i h, x + h sum_j a_ij k_j) and goes to
x + h sum_i b_i k_i. On x' = lambda x it multiplies by R(h lambda), a polynomial; the step is stable where
|R(z)| <= 1.

References:
    Hairer, Norsett & Wanner (1993), Solving ordinary differential equations I, II.1 and II.5;
    Dormand & Prince (1980), J. Comput. Appl. Math. 6; Shampine (1986), Math. Comp. 46;
    Bogacki & Shampine (1989), Appl. Math. Lett. 2; Fehlberg (1969), NASA TR R-315.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]
Field = Callable[[Tensor, Tensors], Tensors]
"""f(t, x): a time without dimensions and the tensors of a state -> their derivatives in time."""


@dataclass(frozen=True, kw_only=True)
class Tableau:
    """A method.

    Attributes:
        order: of the solution. a: (s - 1 rows), lower triangular. b: weights. c: nodes.
        error: b minus the weights of the embedded method; empty where there is none.
    """

    name: str
    order: int
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]
    error: tuple[float, ...] = ()

    @property
    def stages(self) -> int:
        return len(self.b)

    @property
    def first_same_as_last(self) -> bool:
        """Whether the last stage is evaluated at the end of the step."""
        return bool(self.a) and self.b[-1] == 0 and self.a[-1] == self.b[:-1]

    @cached_property
    def polynomial(self) -> tuple[float, ...]:
        """Coefficients of R(z), of z^0 first: 1, then b^T A^(j-1) 1."""
        matrix = np.zeros((self.stages, self.stages))
        for row, entries in enumerate(self.a, start=1):
            matrix[row, : len(entries)] = entries
        moments, vector = [1.0], np.ones(self.stages)
        for _ in range(self.stages):
            moments.append(float(np.dot(self.b, vector)))
            vector = matrix @ vector
        while abs(moments[-1]) < 1e-14:
            moments.pop()
        return tuple(moments)

    def amplification(self, z: Tensor) -> Tensor:
        """|R(z)|, elementwise."""
        value = torch.zeros_like(z)
        for coefficient in reversed(self.polynomial):
            value = value * z + coefficient
        return value.abs()

    def real_limit(self) -> float:
        """The x > 0 up to which |R(-x)| <= 1: how much decay per step the method follows."""
        roots = []
        for level in (1.0, -1.0):
            shifted = np.array(self.polynomial)
            shifted[0] -= level
            roots += [-root.real for root in np.roots(shifted[::-1]) if abs(root.imag) < 1e-9 and root.real < -1e-9]
        return min(roots)


EULER = Tableau(name="euler", order=1, a=(), b=(1.0,), c=(0.0,))
MIDPOINT = Tableau(name="midpoint", order=2, a=((0.5,),), b=(0.0, 1.0), c=(0.0, 0.5))
RK4 = Tableau(
    name="rk4", order=4, a=((0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), b=(1 / 6, 1 / 3, 1 / 3, 1 / 6), c=(0.0, 0.5, 0.5, 1.0)
)
DOPRI5 = Tableau(
    name="dopri5",
    order=5,
    a=(
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    b=(35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0),
    c=(0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    # Against Shampine's companion of order 4, the one that torchdiffeq takes.
    error=(
        35 / 384 - 1951 / 21600,
        0.0,
        500 / 1113 - 22642 / 50085,
        125 / 192 - 451 / 720,
        -2187 / 6784 + 12231 / 42400,
        11 / 84 - 649 / 6300,
        -1 / 60,
    ),
)
METHODS = {tableau.name: tableau for tableau in (EULER, MIDPOINT, RK4, DOPRI5)}


def stage_times(tableau: Tableau, start: float, step: float) -> list[float]:
    """t + c_i h."""
    return [start + node * step for node in tableau.c]


def stages(field: Field, tableau: Tableau, x: Tensors, times: Tensor, step: Tensor | float) -> list[Tensors]:
    """The derivatives at the stages.

    Args:
        x: the state. times: (s,), of the stages. step: h, a number or a tensor without dimensions; a number
            spares the captured step a multiplication for every stage.
    """
    slopes = [field(times[0], x)]
    for row, entries in enumerate(tableau.a, start=1):
        slopes.append(field(times[row], advance(x, slopes, entries, step)))
    return slopes


def runge_kutta_step(field: Field, tableau: Tableau, x: Tensors, times: Tensor, step: Tensor | float) -> Tensors:
    """The state after one step; arguments as for `stages`."""
    if not tableau.b[-1]:  # the last stage only serves the next step and the error
        tableau = _shortened(tableau)
    return advance(x, stages(field, tableau, x, times, step), tableau.b, step)


def advance(x: Tensors, slopes: Sequence[Tensors], weights: Sequence[float], step: Tensor | float) -> Tensors:
    """x + h sum_i w_i k_i, tensor by tensor."""
    used = [(weight, slope) for weight, slope in zip(weights, slopes, strict=False) if weight]
    if isinstance(step, float):
        for weight, slope in used:
            x = tuple(torch.add(value, part, alpha=step * weight) for value, part in zip(x, slope, strict=True))
        return x
    return tuple(value + step * _combined(used, position) for position, value in enumerate(x)) if used else x


def combination(slopes: Sequence[Tensors], weights: Sequence[float], step: Tensor) -> Tensors:
    """h sum_i w_i k_i, tensor by tensor: with the weights of the embedded pair, the error of the step."""
    used = [(weight, slope) for weight, slope in zip(weights, slopes, strict=True) if weight]
    return tuple(step * _combined(used, position) for position in range(len(slopes[0])))


def _combined(used: Sequence[tuple[float, Tensors]], position: int) -> Tensor:
    weight, first = used[0]
    total = first[position] if weight == 1 else weight * first[position]
    for weight, slope in used[1:]:
        total = torch.add(total, slope[position], alpha=weight)
    return total


def _shortened(tableau: Tableau) -> Tableau:
    count = max(i for i, weight in enumerate(tableau.b) if weight) + 1
    return Tableau(
        name=tableau.name,
        order=tableau.order,
        a=tableau.a[: count - 1],
        b=tableau.b[:count],
        c=tableau.c[:count],
    )
