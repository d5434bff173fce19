"""What a V that was given, or a solver's step, must not be taken for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import dynstab

ZERO = torch.zeros(2, dtype=torch.float64)
STIFF = torch.tensor([-1000.0, -1.0], dtype=torch.float64)


def square(x: Tensor) -> Tensor:
    return x.square().sum()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_added_to_v_changes_nothing(dtype: torch.dtype) -> None:
    plain, shifted = (
        dynstab.lyapunov_function(lambda t, x: -x, ZERO.to(dtype), time=60.0, dt=0.05, V=lambda x, c=c: c + square(x))
        for c in (0.0, 5.0)
    )
    assert plain.violations.value == shifted.violations.value == 0
    assert plain.level.value == shifted.level.value == torch.inf


@pytest.mark.parametrize("value", [lambda x: -square(x), lambda x: x[0] ** 2 - x[1] ** 2])
def test_a_v_that_is_not_least_at_the_fixed_point_is_no_lyapunov_function(value) -> None:
    found = dynstab.lyapunov_function(lambda t, x: -x, ZERO, time=10.0, V=value)
    assert found.violations.value is None and "below V(x*)" in found.violations.outcome
    assert found.level.value is None and "below V(x*)" in found.level.outcome


def test_steps_too_long_for_the_field_are_not_held_against_v() -> None:
    coarse, fine = (dynstab.lyapunov_function(lambda t, x: STIFF * x, ZERO, time=1.0, dt=dt) for dt in (0.01, 0.002))
    assert coarse.violations.value is None and "too long for RK4" in coarse.violations.outcome
    assert fine.violations.value == 0


def test_a_field_that_runs_away_is_still_counted() -> None:
    found = dynstab.lyapunov_function(lambda t, x: -x + x**3, torch.zeros(1, dtype=torch.float64), time=5.0, reach=2.0)
    assert found.violations.value is not None and found.violations.value > 0
    assert found.level.value == pytest.approx(0.5, abs=1e-3)
