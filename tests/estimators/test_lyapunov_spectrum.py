from __future__ import annotations

from math import log
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dynstab.core.errors import ConfigError, InputError
from dynstab.core.estimate import CONVERGED
from dynstab.estimators import spectrum
from dynstab.estimators.dimension import expansion_sum, kaplan_yorke_dimension
from dynstab.estimators.lyapunov import lyapunov_spectrum, orbit_spectrum
from dynstab.estimators.orbit import MapOrbit
from dynstab.estimators.product_qr import log_singular_values


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def henon(x: Tensor) -> Tensor:
    return torch.stack([1 - 1.4 * x[0] ** 2 + x[1], 0.3 * x[0]])


def logistic(rate: float):
    return lambda x: rate * x * (1 - x)


def test_henon_map_has_the_exponents_of_the_literature() -> None:
    start = torch.tensor([0.1, 0.1], dtype=torch.float64)
    found = lyapunov_spectrum(henon, start, steps=6000, discard=200)
    assert found.outcome == CONVERGED and found.unit == "nat/step"
    for value, error, known in zip(found.qr, found.errors, (0.41922, -1.62319), strict=True):
        assert abs(float(value) - known) < 4 * float(error) < 0.03
    assert found.sum == pytest.approx(log(0.3), abs=1e-10)  # the determinant is constant
    torch.testing.assert_close(found.finite_time, found.qr, rtol=0, atol=1e-3)
    assert found.kaplan_yorke_dimension == pytest.approx(1.258, abs=0.01)
    assert found.entropy == float(found.qr[0])


def test_logistic_map_on_its_two_cycle() -> None:
    found = lyapunov_spectrum(logistic(3.2), torch.tensor([0.3], dtype=torch.float64), steps=400, discard=400)
    assert float(found.qr) == pytest.approx(0.5 * log(0.16), abs=1e-9)
    assert found.outcome == "settled on a cycle of period 2"
    assert found.kaplan_yorke_dimension == 0.0 and found.entropy == 0.0


def test_a_float32_cycle_of_a_chaotic_map_is_named() -> None:
    found = lyapunov_spectrum(logistic(4.0), torch.tensor([0.2]), steps=20_000)
    assert found.outcome.startswith("a float32 cycle of period") and "rounding" in found.outcome
    period = int(found.outcome.split("period ")[1].split(":")[0])
    state = found.state
    for _ in range(period):
        state = logistic(4.0)(state)
    assert torch.equal(state, found.state) and float(found.qr) > 0


def test_an_unstable_fixed_point_that_rounding_holds_is_not_taken_for_an_attractor() -> None:
    found = lyapunov_spectrum(logistic(4.0), torch.tensor([0.75]), steps=100)  # 3/4 -> 3/4, slope -2
    assert found.outcome.startswith("an unstable fixed point")
    assert float(found.qr) == pytest.approx(log(2))


def test_the_identity_rests_where_it_is() -> None:
    found = lyapunov_spectrum(lambda x: 1.0 * x, torch.ones(3, dtype=torch.float64), steps=30)
    assert found.outcome == "rests at a neutral fixed point" and float(found.qr.abs().max()) < 1e-14


def test_chaotic_logistic_map_has_exponent_ln_two_in_double_precision() -> None:
    found = lyapunov_spectrum(logistic(4.0), torch.tensor([0.3], dtype=torch.float64), steps=5000)
    assert found.outcome == CONVERGED
    assert abs(float(found.qr) - log(2)) < max(4 * float(found.errors), 1e-3)


def test_divergence_is_named_with_its_step_and_the_numbers_say_so() -> None:
    found = lyapunov_spectrum(logistic(4.5), torch.tensor([0.3]), steps=1000)
    state, step = torch.tensor([0.3]), 0
    while state.isfinite().all():
        state, step = logistic(4.5)(state), step + 1
    assert found.outcome == f"diverged at step {step}"
    assert found.qr.isnan().all() and found.finite_time.isnan().all() and found.sum != found.sum


def test_divergence_in_the_transient_is_named_too() -> None:
    found = lyapunov_spectrum(logistic(4.5), torch.tensor([0.3]), steps=10, discard=1000)
    assert found.outcome.startswith("diverged at step") and found.products == 0


def test_a_stable_fixed_point_is_named_and_its_exponents_are_those_of_its_jacobian() -> None:
    weight = gaussian(12, 12) * 0.5 / 12**0.5
    found = lyapunov_spectrum(lambda h: torch.tanh(weight @ h), gaussian(12, seed=1), steps=3000, discard=400)
    radius = torch.linalg.eigvals(weight).abs().max()
    assert found.outcome == "collapsed to a fixed point"
    assert float(found.qr[0]) == pytest.approx(float(radius.log()), abs=2e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_random_network_at_gain_two_is_near_the_large_width_limit(dtype: torch.dtype) -> None:
    size = 300
    weight = (2.0 * gaussian(size, size) / size**0.5).to(dtype)
    found = lyapunov_spectrum(
        lambda h: weight @ torch.tanh(h), gaussian(size, seed=1).to(dtype), steps=1500, k=3, discard=300
    )
    assert found.outcome == CONVERGED and found.qr.dtype is torch.float64
    assert float(found.qr[0]) == pytest.approx(0.154724, abs=0.025)  # N -> infinity
    assert float(found.finite_time[0]) >= float(found.qr[0])
    assert found.sum != found.sum and found.kaplan_yorke_dimension != found.kaplan_yorke_dimension


def test_full_spectrum_sums_to_the_log_determinant_of_the_orbit() -> None:
    size, steps = 20, 300
    weight, state = 2.0 * gaussian(size, size) / size**0.5, gaussian(size, seed=1)
    found = lyapunov_spectrum(lambda h: weight @ torch.tanh(h), state, steps=steps)
    total = 0.0
    for _ in range(steps):
        total += float((1 - torch.tanh(state) ** 2).log().sum() + torch.linalg.slogdet(weight).logabsdet)
        state = weight @ torch.tanh(state)
    assert found.sum == pytest.approx(total / steps, rel=1e-9)
    assert float(found.finite_time.sum()) == pytest.approx(total / steps, rel=1e-9)
    assert bool((found.qr.cumsum(0) <= found.finite_time.cumsum(0) + 1e-4).all())


def test_zero_weight_lstm_forgets_at_its_gate_and_loses_its_hidden_state() -> None:
    cell = nn.LSTMCell(1, 3).double()
    bias = 1.0
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        cell.bias_ih[3:6] = bias

    def step(state: Tensor) -> Tensor:
        h, c = cell(torch.zeros(1, 1, dtype=torch.float64), (state[:1], state[1:]))
        return torch.cat([h, c])

    found = lyapunov_spectrum(step, gaussian(2, 3), steps=60, discard=120)
    gate = -torch.nn.functional.softplus(torch.tensor(-bias, dtype=torch.float64))
    torch.testing.assert_close(found.qr[:3], gate.expand(3), rtol=1e-9, atol=0)
    assert bool(found.qr[3:].isneginf().all()) and bool(found.finite_time[3:].isneginf().all())
    torch.testing.assert_close(found.finite_time[:3], gate.expand(3), rtol=0, atol=0.02)  # O(1/L) apart


def test_a_state_that_is_a_tuple_of_tensors_has_the_spectrum_of_its_entries() -> None:
    torch.manual_seed(0)
    cell, x, size = nn.LSTMCell(2, 3).double(), gaussian(4, 2), 3
    start = (gaussian(4, size, seed=1), gaussian(4, size, seed=2))
    found = lyapunov_spectrum(lambda state: cell(x, state), start, steps=60, discard=60)

    def flat(state: Tensor) -> Tensor:
        return torch.cat(cell(x, (state[:4], state[4:])))

    expected = lyapunov_spectrum(flat, torch.cat(start), steps=60, discard=60)
    torch.testing.assert_close(found.qr, expected.qr)
    h, c = found.state
    torch.testing.assert_close(torch.cat([h, c]), expected.state)


def test_a_tuple_that_changes_its_parts_is_refused() -> None:
    with pytest.raises(InputError, match="maps a state"):
        lyapunov_spectrum(lambda state: (state[0],), (torch.zeros(2), torch.zeros(3)))
    with pytest.raises(InputError, match="several parts"):
        lyapunov_spectrum(lambda state: state, (torch.zeros(2), torch.zeros(2, dtype=torch.float64)))


def test_rounding_that_flickers_around_a_fixed_point_is_no_cycle() -> None:
    # These maps contract to points of which the last digits of a float32 may go on changing.
    for seed in range(4):
        layer = nn.Linear(16, 16)
        with torch.no_grad():
            layer.weight.copy_(0.9 * torch.linalg.qr(gaussian(16, 16, seed=seed)).Q)
            layer.bias.copy_(gaussian(16, seed=seed + 50))
        found = lyapunov_spectrum(nn.Sequential(layer, nn.Tanh()), torch.zeros(16), steps=400)
        assert found.outcome == "collapsed to a fixed point"


def test_a_module_and_a_state_of_any_shape_serve() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    found = lyapunov_spectrum(module, torch.randn(3, 4), steps=40, k=2)
    assert found.qr.shape == (2,) and found.state.shape == (3, 4)
    assert all(parameter.grad is None for parameter in module.parameters())


def test_factors_past_the_memory_limit_are_dropped_and_that_is_said() -> None:
    found = lyapunov_spectrum(henon, torch.tensor([0.1, 0.1]).double(), steps=300, memory_limit=100)
    assert found.finite_time.isnan().all() and "memory limit" in found.method
    assert found.qr.isfinite().all()


@pytest.mark.parametrize(
    ("options", "error"),
    [({"k": 3}, ConfigError), ({"k": 0}, ConfigError), ({"steps": 0}, ConfigError), ({"discard": -1}, ConfigError)],
)
def test_options_that_cannot_be_served_are_refused(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        lyapunov_spectrum(henon, torch.zeros(2), **options)


def test_a_step_must_map_states_to_states() -> None:
    with pytest.raises(InputError, match="maps a state"):
        lyapunov_spectrum(lambda x: x[:1], torch.zeros(2))
    with pytest.raises(InputError, match="floating-point"):
        lyapunov_spectrum(henon, torch.zeros(2, dtype=torch.int64))


def test_an_orbit_that_rounding_brings_to_rest_late_is_no_chaos() -> None:
    # The baker map: x is 0 after 53 doublings, y underflows to 0 after 678 steps, both stay there.
    def baker(point: Tensor) -> Tensor:
        return torch.stack([torch.remainder(2 * point[0], 1), (point[1] + 2 * (point[0] >= 0.5)) / 3])

    found = lyapunov_spectrum(baker, torch.tensor([0.3, 0.2]).double(), steps=800)
    assert found.state.tolist() == [0.0, 0.0] and found.outcome.startswith("an unstable fixed point")
    # A short orbit does not get there.
    assert lyapunov_spectrum(baker, torch.tensor([0.3, 0.2]).double(), steps=40).outcome == CONVERGED


def test_a_rotation_of_a_torus_fills_all_of_its_dimensions() -> None:
    for dtype in (torch.float64, torch.float32):
        turn = torch.tensor([2**0.5 / 10, 3**0.5 / 10, 0.3], dtype=dtype)
        found = lyapunov_spectrum(lambda x, turn=turn: torch.remainder(x + turn, 1), torch.zeros_like(turn), steps=500)
        assert found.kaplan_yorke_dimension == 3


def test_kaplan_yorke_dimension_of_the_lorenz_spectrum() -> None:
    assert kaplan_yorke_dimension(torch.tensor([0.9056, 0.0, -14.5723]).double()) == pytest.approx(2.0621, abs=1e-4)
    assert kaplan_yorke_dimension(torch.tensor([-1.0, -2.0])) == 0.0
    assert kaplan_yorke_dimension(torch.tensor([2.0, -1.0])) == 2.0
    beyond = kaplan_yorke_dimension(torch.tensor([2.0, -1.0]), full=False)
    assert beyond != beyond
    assert kaplan_yorke_dimension(torch.tensor([1.0, -torch.inf])) == 1.0
    assert expansion_sum(torch.tensor([1.0, 0.5, -torch.inf])) == 1.5


def test_rarer_factorisations_of_many_tangents_leave_the_exponents_as_they_are() -> None:
    size = 80
    weight, start = 2.0 * gaussian(size, size) / size**0.5, gaussian(size, seed=1)

    def step(h: Tensor) -> Tensor:
        return weight @ torch.tanh(h)

    options: dict[str, Any] = {"steps": 200, "k": None, "discard": 40, "seed": 0, "memory_limit": 0}
    rarely = orbit_spectrum(MapOrbit(step, start), **options)
    every = orbit_spectrum(MapOrbit(step, start), longest=1, **options)
    assert int(rarely.method.split()[1]) < 200 == int(every.method.split()[1])
    torch.testing.assert_close(rarely.qr, every.qr, rtol=0, atol=1e-5)


def test_finite_time_exponents_are_worked_out_once_and_only_when_read(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return log_singular_values(*args, **kwargs)

    monkeypatch.setattr(spectrum, "log_singular_values", counted)
    found = lyapunov_spectrum(henon, torch.tensor([0.1, 0.1]).double(), steps=50)
    assert found.qr.isfinite().all() and not calls
    assert found.finite_time is found.finite_time and len(calls) == 1


def test_a_step_defined_on_a_part_of_space_alone_is_served() -> None:
    def guarded(x: Tensor) -> Tensor:
        if bool((x > 1).any()):
            raise ValueError("outside")
        return 3.9 * x * (1 - x)

    start = torch.tensor([0.3], dtype=torch.float64)
    found = lyapunov_spectrum(guarded, start, steps=200)
    torch.testing.assert_close(found.qr, lyapunov_spectrum(logistic(3.9), start, steps=200).qr, rtol=0, atol=0.2)


def test_a_step_that_depends_on_no_state_is_refused() -> None:
    with pytest.raises(InputError, match="does not depend"):
        lyapunov_spectrum(lambda x: torch.ones(2, dtype=x.dtype) + 0 * x.detach(), torch.zeros(2))
