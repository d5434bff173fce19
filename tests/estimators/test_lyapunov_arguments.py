"""What `lyapunov_spectrum` is asked that it cannot serve, and answers that would be plausible and wrong."""

from __future__ import annotations

from math import inf, log, nan
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


def test_a_complex_state_has_two_exponents_a_number() -> None:
    multiplier = torch.tensor([0.9 * torch.exp(torch.tensor(1j)), 1.2j], dtype=torch.complex128)
    found = dynstab.lyapunov_spectrum(
        lambda z: multiplier * z, torch.ones(2, dtype=torch.complex128), steps=200, discard=200
    )
    assert found.qr.tolist() == pytest.approx([log(1.2)] * 2 + [log(0.9)] * 2)
    assert found.state.is_complex() and found.state.shape == (2,)


def test_a_map_that_is_not_analytic_has_different_exponents_in_both_directions_of_a_number() -> None:
    found = dynstab.lyapunov_spectrum(
        lambda z: torch.complex(0.9 * z.real, 0.5 * z.imag),
        torch.ones(1, dtype=torch.complex128),
        steps=100,
        discard=200,
    )
    assert found.qr.tolist() == pytest.approx([log(0.9), log(0.5)])


def test_a_dictionary_of_real_and_complex_parts_is_a_state() -> None:
    state = {"x": start(0.1, 0.2), "z": torch.ones(1, dtype=torch.complex128)}
    found = dynstab.lyapunov_spectrum(lambda s: {"x": 0.5 * s["x"], "z": 2j * s["z"]}, state, steps=100, discard=200)
    assert found.qr.tolist() == pytest.approx([log(2)] * 2 + [log(0.5)] * 2)
    assert set(found.state) == {"x", "z"} and found.state["z"].is_complex()


def test_many_complex_trajectories_go_together() -> None:
    starts = torch.tensor([[0.1], [0.2j]], dtype=torch.complex128)
    found = dynstab.lyapunov_spectra(lambda z: z**2 + 0.1, starts, steps=300)
    alone = dynstab.lyapunov_spectrum(lambda z: z**2 + 0.1, starts[1], steps=300)
    assert torch.allclose(found[1].qr, alone.qr) and found[1].outcome == alone.outcome
    # At the fixed point z* = z*^2 + 0.1 the multiplier is 2 z*.
    fixed = (1 - (1 - 0.4) ** 0.5) / 2
    assert found[0].qr.tolist() == pytest.approx([log(2 * fixed)] * 2, abs=0.02)


def test_a_real_state_that_comes_back_complex_is_refused() -> None:
    with pytest.raises(InputError, match="complex"):
        dynstab.lyapunov_spectrum(lambda s: (s[0] * 1j,), (start(1.0),))


def test_a_step_that_writes_into_its_state_is_refused_and_the_users_state_stays_as_it_was() -> None:
    x = start(0.1, 0.2)
    with pytest.raises(InputError, match="writes into the state.*pure function.*clone"):
        dynstab.lyapunov_spectrum(lambda s: s.mul_(0.9), x)
    assert torch.equal(x, start(0.1, 0.2))


@pytest.mark.parametrize(
    ("state", "remedy"),
    [
        (torch.tensor([1, 2]), "double"),
        (0.1, "torch.tensor"),
        ([0.1, 0.2], "convert the parts"),
        ((start(1.0), torch.zeros(1)), "convert the parts"),
    ],
)
def test_a_state_that_is_none_is_refused_with_a_way_on(state: Any, remedy: str) -> None:
    with pytest.raises(InputError, match=remedy):
        dynstab.lyapunov_spectrum(lambda s: s, state)


def test_steps_and_time_together_are_refused() -> None:
    with pytest.raises(ConfigError, match="one of them.*dt"):
        dynstab.lyapunov_spectrum(lambda t, x: -x, start(1.0), time=1.0, steps=4)
