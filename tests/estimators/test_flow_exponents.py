"""Lyapunov exponents of vector fields whose answers are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import dynstab
from dynstab.core.errors import ConfigError, InputError

F64 = torch.float64


def vector(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=F64)


def lorenz(t: Tensor, x: Tensor) -> Tensor:
    a, b, c = x.unbind()
    return torch.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c])


def lorenz96(t: Tensor, x: Tensor) -> Tensor:
    return (x.roll(-1) - x.roll(2)) * x.roll(1) - x + 8


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_a_linear_field_has_the_real_parts_of_its_eigenvalues(method):
    matrix = torch.tensor([[-0.2, 3.0, 0.0], [-3.0, -0.2, 1.0], [0.0, 0.0, -1.0]], dtype=F64)
    found = dynstab.lyapunov_spectrum(
        lambda t, x: matrix @ x, vector(1, 1, 1), time=20.0, dt=0.05, discard=20.0, method=method
    )
    assert torch.allclose(found.qr, vector(-0.2, -0.2, -1.0), atol=3e-2)
    assert found.sum == pytest.approx(-1.4, abs=1e-4 if method == "rk4" else 1e-7)
    assert found.unit == "nat/time"


def test_lorenz_contracts_volumes_at_its_divergence_and_stretches_on_its_attractor():
    found = dynstab.lyapunov_spectrum(lorenz, vector(1, 1, 20), time=60.0, dt=0.01, discard=10.0)
    assert found.sum == pytest.approx(-41 / 3, abs=2e-3)
    assert abs(float(found.qr[0]) - 0.9056) < 4 * float(found.errors[0]) + 0.02
    assert abs(float(found.qr[1])) < 4 * float(found.errors[1]) + 0.02
    assert found.kaplan_yorke_dimension == pytest.approx(2.062, abs=0.02)
    assert found.outcome == "converged"


def test_lorenz_96_contracts_at_minus_its_size():
    x = 8 + torch.randn(40, dtype=F64, generator=torch.Generator().manual_seed(0))
    found = dynstab.lyapunov_spectrum(lorenz96, x, time=10.0, dt=0.02, discard=5.0)
    assert found.sum == pytest.approx(-40.0, abs=2e-3)
    assert 1.0 < float(found.qr[0]) < 2.5


def test_a_hamiltonian_field_has_exponents_in_pairs():
    """Henon & Heiles at an energy at which most orbits are chaotic."""

    def field(t: Tensor, x: Tensor) -> Tensor:
        q1, q2, p1, p2 = x.unbind()
        return torch.stack([p1, p2, -q1 - 2 * q1 * q2, -q2 - q1.square() + q2.square()])

    found = dynstab.lyapunov_spectrum(field, vector(0.0, 0.1, 0.5, 0.1), time=40.0, dt=0.02)
    assert abs(found.sum) < 1e-6
    assert torch.allclose(found.finite_time, -found.finite_time.flip(0), atol=2e-4)


def test_a_field_that_depends_on_time_is_integrated_at_its_times():
    found = dynstab.lyapunov_spectrum(lambda t, x: torch.cos(t) * x, vector(1.0), time=math.pi / 2, dt=math.pi / 200)
    assert float(found.qr[0]) == pytest.approx(2 / math.pi, abs=1e-7)


def test_euler_makes_an_oscillator_grow_and_rk4_damps_it_as_their_stability_functions_say():
    def oscillator(t: Tensor, x: Tensor) -> Tensor:
        return torch.stack([3 * x[1], -3 * x[0]])

    for method, growth in (("euler", 0.5 * math.log(1.09)), ("rk4", math.log(abs(_rk4(0.3j))))):
        found = dynstab.lyapunov_spectrum(oscillator, vector(1e-3, 0), time=10.0, dt=0.1, method=method)
        assert torch.allclose(found.qr, torch.full((2,), 10 * growth, dtype=F64), atol=1e-9)


def _rk4(z: complex) -> complex:
    return 1 + z + z**2 / 2 + z**3 / 6 + z**4 / 24


def test_a_stiff_field_says_that_its_fast_decay_was_not_followed():
    def van_der_pol(t: Tensor, x: Tensor) -> Tensor:
        return torch.stack([x[1], 1000 * (1 - x[0] ** 2) * x[1] - x[0]])

    found = dynstab.lyapunov_spectrum(van_der_pol, vector(2.0, 0.0), time=0.5, method="dopri5")
    assert "the field is stiff" in found.outcome
    assert float(found.qr[1]) > -100  # of the solver's map; the field's is -3000
    assert float(found.qr[1] - found.errors[1]) < -1000


def test_an_adaptive_solver_has_the_error_that_half_of_its_step_shows():
    def oscillator(t: Tensor, x: Tensor) -> Tensor:
        return torch.stack([x[1], -x[0]])

    found = dynstab.lyapunov_spectrum(oscillator, vector(1.0, 0.0), time=20.0, dt=0.1, method="dopri5")
    assert found.outcome == "converged" and "step doubling" in found.method
    assert bool((found.qr.abs() <= found.errors).all()) and float(found.errors.max()) < 1e-6


def test_a_blow_up_is_named_with_its_time_and_no_number_is_made_up():
    for method in ("rk4", "dopri5"):
        found = dynstab.lyapunov_spectrum(lambda t, x: x.square(), vector(1.0, 0.5), time=5.0, method=method)
        assert bool(found.qr.isnan().all()) and math.isnan(found.sum)
        assert "t = 1" in found.outcome
        assert ("blew up" if method == "rk4" else "underflowed") in found.outcome


def test_a_state_that_comes_to_rest_is_named():
    found = dynstab.lyapunov_spectrum(lambda t, x: -x, vector(1.0, 2.0), time=40.0, dt=0.05)
    assert found.outcome == "collapsed to a fixed point"
    assert torch.allclose(found.qr, vector(-1, -1), atol=1e-5)


def test_a_field_that_branches_is_measured_by_another_route():
    def branching(t: Tensor, x: Tensor) -> Tensor:
        return torch.stack([x[1], -x[0]]) - (0.2 if x[0] > 0 else 0.4) * x

    def smooth(t: Tensor, x: Tensor) -> Tensor:
        return torch.stack([x[1], -x[0]]) - torch.where(x[0] > 0, 0.2, 0.4) * x

    found, expected = (
        dynstab.lyapunov_spectrum(field, vector(1.0, 0.0), time=8.0, dt=0.05) for field in (branching, smooth)
    )
    assert torch.allclose(found.qr, expected.qr, atol=1e-12)
    assert -0.4 < float(found.qr[0]) < -0.2


def test_a_module_and_a_batch_serve_as_field_and_state():
    torch.manual_seed(0)

    class Field(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, t: Tensor, x: Tensor) -> Tensor:
            return torch.tanh(self.linear(x)) - 2 * x

    field = Field().double()
    found = dynstab.lyapunov_spectrum(field, torch.ones(2, 3, dtype=F64), time=4.0, dt=0.05, k=2)
    assert found.qr.shape == (2,) and float(found.qr[0]) < 0
    assert found.state.shape == (2, 3) and all(p.grad is None for p in field.parameters())


def test_what_cannot_be_served_is_refused_in_one_sentence():
    with pytest.raises(InputError, match="returns dx/dt in the shape"):
        dynstab.lyapunov_spectrum(lambda t, x: x[:1], vector(1.0, 2.0), time=1.0)
    with pytest.raises(ConfigError, match="euler"):
        dynstab.lyapunov_spectrum(lambda t, x: x, vector(1.0), time=1.0, method="implicit")
    with pytest.raises(ConfigError, match="0 < dt <= time"):
        dynstab.lyapunov_spectrum(lambda t, x: x, vector(1.0), time=1.0, dt=-0.1)
