"""What `lyapunov_spectrum` is asked that it cannot serve, and answers that would be plausible and wrong."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest
import torch
from torch import Tensor

import dynstab
from dynstab.core.errors import ConfigError, InputError

F64 = torch.float64


def henon(x: Tensor) -> Tensor:
    return torch.stack([1 - 1.4 * x[0] ** 2 + x[1], 0.3 * x[0]])


def decay(t: Tensor, x: Tensor) -> Tensor:
    return -x


def start(*values: float) -> Tensor:
    return torch.tensor(values, dtype=F64)


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 10.5},
        {"steps": "10"},
        {"steps": 0},
        {"discard": nan},
        {"discard": inf},
        {"discard": 0.5},
        {"k": 1.5},
        {"k": "all"},
        {"k": 3},
        {"method": "typo"},
        {"dt": 0.1},
        {"time": "1"},
        {"time": nan},
        {"time": 1.0, "discard": nan},
    ],
)
def test_numbers_that_mean_nothing_are_refused_before_anything_runs(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        dynstab.lyapunov_spectrum(henon, start(0.1, 0.1), **options)


def test_a_field_without_time_and_a_map_with_it_are_told_apart() -> None:
    with pytest.raises(InputError, match="give time="):
        dynstab.lyapunov_spectrum(decay, start(1.0))
    with pytest.raises(InputError, match="leave time= out"):
        dynstab.lyapunov_spectrum(henon, start(0.1, 0.1), time=1.0)
    with pytest.raises(InputError, match="no entries"):
        dynstab.lyapunov_spectrum(henon, torch.zeros(0))


@pytest.mark.parametrize("cut", [lambda x: x.item(), lambda x: x.detach()])
def test_a_derivative_of_which_a_part_is_cut_off_is_refused(cut: Any) -> None:
    with pytest.raises(InputError, match="misses a part"):
        dynstab.lyapunov_spectrum(
            lambda x: torch.stack([1 - 1.4 * cut(x[0]) ** 2 + x[1], 0.3 * x[0]]), start(0.1, 0.1), steps=100
        )
    with pytest.raises(InputError, match="misses a part"):
        dynstab.lyapunov_spectrum(lambda t, x: torch.stack([x[1], -cut(x[0]) + 0 * x[1]]), start(1.0, 0.0), time=1.0)


@pytest.mark.parametrize("first", [0.0, 0.1])
def test_a_step_that_branches_on_values_has_the_derivative_of_the_way_it_takes(first: float) -> None:
    """Against the same orbit with its Jacobians by hand, and Lozi's map, which branches at its first state."""

    def cut(x: Tensor) -> Tensor:
        return 0.1 * henon(x) if float(x[0]) > 1.25 else henon(x)

    found = dynstab.lyapunov_spectrum(cut, start(first, first), steps=500)
    x, volume, taken = start(first, first), 0.0, 0
    for _ in range(500):
        taken += float(x[0]) > 1.25
        volume += float(torch.tensor(0.3).log()) + (2 * float(torch.tensor(0.1).log()) if float(x[0]) > 1.25 else 0.0)
        x = cut(x)
    assert taken > 5 and found.sum == pytest.approx(volume / 500, rel=1e-6)
    torch.testing.assert_close(found.state, x, rtol=1e-12, atol=0)

    def lozi(x: Tensor) -> Tensor:
        return torch.stack([1 - (1.7 if float(x[0]) >= 0 else -1.7) * x[0] + x[1], 0.5 * x[0]])

    found = dynstab.lyapunov_spectrum(lozi, start(first, first), steps=2000)
    assert abs(float(found.qr[0]) - 0.4738) < 5 * float(found.errors[0]) + 0.002
    assert found.sum == pytest.approx(float(torch.tensor(0.5, dtype=F64).log()), abs=1e-9)


def test_the_entropy_of_fewer_exponents_is_not_that_of_all() -> None:
    factors = start(3.0, 2.0, 0.5)
    spectra = [dynstab.lyapunov_spectrum(lambda x: factors * x % 1, start(0.1, 0.2, 0.3), k=k) for k in (1, None)]
    assert torch.isnan(torch.tensor(spectra[0].entropy))
    assert spectra[1].entropy == pytest.approx(float(factors[:2].log().sum()), abs=1e-3)
    contracting = dynstab.lyapunov_spectrum(lambda x: x / factors.flip(0) / 4, start(1.0, 1.0, 1.0), k=1, steps=100)
    assert contracting.entropy == 0.0


@pytest.mark.parametrize("method, rate", [("rk4", -25.0), ("euler", -300.0)])
def test_a_step_that_is_too_long_for_the_field_is_named_and_its_error_holds_the_truth(method: str, rate: float) -> None:
    dt = -2.5 / rate
    found = dynstab.lyapunov_spectrum(lambda t, x: rate * x, start(1.0), time=100 * dt, dt=dt, method=method)
    assert "dt is too large" in found.outcome
    assert abs(float(found.qr[0]) - rate) <= 1.5 * float(found.errors[0])


def test_the_error_of_the_solver_is_a_part_of_the_error() -> None:
    """Of exponents -1 and -3: midpoint's own error, (lambda dt)^3 / 6 a step."""
    rates, dt = start(-1.0, -3.0), 0.05
    found = dynstab.lyapunov_spectrum(
        lambda t, x: rates * x, start(1.0, 1.0), time=2.0, discard=10, dt=dt, method="midpoint"
    )
    assert "dt is too large" not in found.outcome
    gap = (found.qr - rates).abs()
    assert bool((gap <= 1.5 * found.errors).all()) and bool((found.errors <= 3 * gap).all())
