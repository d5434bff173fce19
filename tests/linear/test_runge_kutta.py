"""Runge-Kutta steps against the exponential, against scipy, and their stability regions against the textbook."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import torch
from torch import Tensor

from dynstab.linear.adaptive import StepControl
from dynstab.linear.runge_kutta import DOPRI5, METHODS, Tableau, runge_kutta_step, stage_times

F64 = torch.float64
MATRIX = torch.tensor([[-1.0, 2.0, 0.3], [-0.4, -0.5, 0.1], [0.0, 0.7, 0.2]], dtype=F64)


def step_over(tableau: Tableau, field, x: Tensor, start: float, size: float) -> Tensor:
    times = torch.tensor(stage_times(tableau, start, size), dtype=F64)
    return runge_kutta_step(field, tableau, (x,), times, torch.tensor(size, dtype=F64))[0]


def over_unit_time(tableau: Tableau, field, x: Tensor, steps: int) -> Tensor:
    for i in range(steps):
        x = step_over(tableau, field, x, i / steps, 1 / steps)
    return x


@pytest.mark.parametrize("tableau", METHODS.values(), ids=lambda t: t.name)
def test_the_conditions_of_consistency_hold(tableau):
    assert math.isclose(sum(tableau.b), 1.0)
    for row, node in zip(tableau.a, tableau.c[1:], strict=True):
        assert math.isclose(sum(row), node)
    if tableau.error:
        assert abs(sum(tableau.error)) < 1e-14


@pytest.mark.parametrize("tableau", METHODS.values(), ids=lambda t: t.name)
def test_a_step_of_a_linear_field_is_the_stability_polynomial_of_its_matrix(tableau):
    h, x = 0.37, torch.tensor([1.0, -2.0, 0.5], dtype=F64)
    powers = [torch.linalg.matrix_power(h * MATRIX, j) for j in range(len(tableau.polynomial))]
    matrix = torch.stack([c * p for c, p in zip(tableau.polynomial, powers, strict=True)]).sum(0)
    assert torch.allclose(step_over(tableau, lambda t, x: (MATRIX @ x[0],), x, 0.0, h), matrix @ x, atol=1e-13)


@pytest.mark.parametrize("tableau", METHODS.values(), ids=lambda t: t.name)
def test_halving_the_step_divides_the_error_by_two_to_the_order(tableau):
    """x' = x cos t, x(1) = e^(sin 1): a field that depends on time."""
    errors = []
    for steps in (8, 16):
        x = over_unit_time(tableau, lambda t, x: (x[0] * torch.cos(t),), torch.ones(1, dtype=F64), steps)
        errors.append(abs(float(x) - math.exp(math.sin(1.0))))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(tableau.order, abs=0.45)


@pytest.mark.parametrize(
    ("name", "limit"), [("euler", 2.0), ("midpoint", 2.0), ("rk4", 2.785293563), ("dopri5", 3.306567893)]
)
def test_the_stability_regions_end_on_the_real_axis_where_the_textbook_says(name, limit):
    tableau = METHODS[name]
    assert tableau.real_limit() == pytest.approx(limit, abs=1e-8)
    edge = torch.tensor([-0.999 * limit, -1.001 * limit], dtype=torch.complex128)
    inside, outside = tableau.amplification(edge).tolist()
    assert inside <= 1 < outside


def test_the_imaginary_axis_belongs_to_rk4_up_to_the_square_root_of_eight():
    z = 1j * torch.tensor([2.82, 2.83], dtype=F64)
    inside, outside = METHODS["rk4"].amplification(z).tolist()
    assert inside < 1 < outside
    assert METHODS["euler"].amplification(torch.tensor([0.1j], dtype=torch.complex128)).item() == pytest.approx(
        math.sqrt(1.01)
    )


def test_the_adaptive_solution_is_scipys():
    def pendulum(t: float, x: np.ndarray) -> np.ndarray:
        return np.array([x[1], -np.sin(x[0]) - 0.1 * x[1] + 0.2 * np.cos(t)])

    def field(t: Tensor, x: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (y,) = x
        return (torch.stack([y[1], -torch.sin(y[0]) - 0.1 * y[1] + 0.2 * torch.cos(t)]),)

    reference = scipy.integrate.solve_ivp(pendulum, (0, 10), [1.0, 0.0], rtol=1e-11, atol=1e-13).y[:, -1]
    control = StepControl(DOPRI5, rtol=1e-8, atol=1e-10, step=0.1)
    *_, last = control.attempts(field, (torch.tensor([1.0, 0.0], dtype=F64),), 0.0, 10.0)
    assert not control.failure
    assert np.abs(last.state[0].numpy() - reference).max() < 1e-6
    assert last.start + last.step == pytest.approx(10.0)


def test_the_adaptive_solution_runs_backwards_too():
    control = StepControl(DOPRI5, rtol=1e-9, atol=1e-12, step=0.1)
    x = (torch.tensor([1.0, 2.0, 3.0], dtype=F64),)
    *_, last = control.attempts(lambda t, x: (MATRIX @ x[0],), x, 1.0, -0.5)
    expected = scipy.linalg.expm(-1.5 * MATRIX.numpy()) @ x[0].numpy()
    assert np.abs(last.state[0].numpy() - expected).max() < 1e-7


def test_a_solution_that_blows_up_ends_in_a_step_size_that_underflows():
    control = StepControl(DOPRI5, rtol=1e-6, atol=1e-8, step=0.1)
    list(control.attempts(lambda t, x: (x[0].square(),), (torch.ones(1, dtype=F64),), 0.0, 2.0))
    assert control.failure.startswith("the step size underflowed at t = 1")


def test_a_stiff_solution_that_uses_up_its_steps_says_so():
    control = StepControl(DOPRI5, rtol=1e-6, atol=1e-8, step=0.1, most=50)
    list(control.attempts(lambda t, x: (-1e5 * (x[0] - torch.cos(t)),), (torch.ones(1, dtype=F64),), 0.0, 1.0))
    assert control.failure.startswith("50 steps were not enough")
