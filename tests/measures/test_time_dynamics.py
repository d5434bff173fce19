"""Recurrences measured as dynamical systems, against closed forms and brute force."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dynstab.core.config import Config
from dynstab.core.estimate import Label
from dynstab.core.measurements import Measurements
from dynstab.measures import measure, planned_products
from dynstab.systems.time import time_system

F64 = torch.float64


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def measured(module: nn.Module, *inputs: Tensor, k: int = 8, effort: str = "standard") -> Measurements:
    config = Config(k=k, effort=effort)  # type: ignore[arg-type]
    return measure(time_system(module, inputs).trajectory, config)


class Map(nn.Module):
    """state -> function(state)."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, state: Tensor) -> Tensor:
        return self.function(state)  # type: ignore[operator]


class Linear(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, state: Tensor, drive: Tensor) -> Tensor:
        return state @ self.weight.T + drive


def test_exponents_of_a_driven_network_are_those_of_a_dense_qr_at_every_step() -> None:
    torch.manual_seed(0)
    size, steps = 10, 160
    layer = nn.RNN(3, size).double()
    with torch.no_grad():
        layer.weight_hh_l0.copy_(2.5 * seeded(size, size) / size**0.5)
    sequence = 0.3 * seeded(steps, 1, 3, seed=1)
    found = measured(layer, sequence, k=size)
    # By brute force: Jacobians written down, a QR at every step in numpy.
    w, u = layer.weight_hh_l0.detach().numpy(), layer.weight_ih_l0.detach().numpy()
    b = (layer.bias_hh_l0 + layer.bias_ih_l0).detach().numpy()
    h, q, total = np.zeros(size), np.linalg.qr(seeded(size, size, seed=5).numpy())[0], np.zeros(size)
    kept = steps - 1 - (steps - 1) // 5
    for time, x in enumerate(sequence[:, 0].numpy()):
        h = np.tanh(w @ h + u @ x + b)
        if time == 0:  # the first state is zero: the count begins at the second
            continue
        q, r = np.linalg.qr(((1 - h**2)[:, None] * w) @ q)
        total += np.log(np.abs(np.diag(r))) * (time >= steps - kept)
    expected = np.sort(total / kept)[::-1]
    got = [estimate.value for estimate in found.lyapunov.qr]
    # The frames start differently: what is left of that after the discarded fifth is small.
    assert got == pytest.approx(expected.tolist(), abs=0.02)
    assert sum(got) == pytest.approx(expected.sum(), rel=1e-8)


@pytest.mark.parametrize("lowest", [-1.0, -0.2])
def test_a_few_tangents_in_a_wide_state_have_the_error_of_the_directions_that_they_miss(lowest: float) -> None:
    rates = torch.linspace(0, lowest, 600, dtype=F64)
    found = measured(Linear(torch.diag(rates.exp())), seeded(4, 600), seeded(40, 4, 600, seed=1), k=4).lyapunov.qr
    for estimate, rate in zip(found, rates.tolist(), strict=False):
        assert estimate.value is not None and estimate.error is not None
        # Random tangents are far from the slowest of 600 directions after 40 steps: -0.02 for an exact 0.
        assert estimate.value < rate
        assert abs(estimate.value - rate) < 2 * estimate.error


def test_a_linear_recurrence_has_the_exponents_of_its_eigenvalues_and_the_angles_of_its_eigenvectors() -> None:
    basis, multipliers = seeded(3, 3), torch.tensor([0.9, 0.6, 0.3], dtype=F64)
    weight = basis @ torch.diag(multipliers) @ torch.linalg.inv(basis)
    found = measured(Linear(weight), seeded(2, 3, seed=1), seeded(250, 2, 3, seed=2))
    assert [e.value for e in found.lyapunov.qr] == pytest.approx(multipliers.log().tolist(), abs=1e-6)
    assert found.time is not None and found.time.driven
    unit = basis / basis.norm(dim=0)
    for i, angle in enumerate(found.time.angles):
        assert angle.value == pytest.approx(math.acos(min(1.0, abs(float(unit[:, i] @ unit[:, i + 1])))), abs=1e-5)
    # The running estimate ends where the estimate stands.
    assert found.time.running[-1][0] == pytest.approx(found.lyapunov.qr[0].value)
    assert found.time.running_steps[-1] == found.time.steps + found.time.discarded == 250


def test_a_gradient_halves_in_the_time_that_the_multiplier_sets() -> None:
    # Every direction shrinks by the same factor: half-life ln 2 / |ln r|, reach ln 20 / |ln r|.
    ratio = 0.9
    weight = ratio * torch.linalg.qr(seeded(4, 4)).Q
    found = measured(Linear(weight), seeded(3, 4, seed=1), seeded(120, 3, 4, seed=2)).time
    assert found is not None
    assert found.half_life.value == pytest.approx(math.log(2) / -math.log(ratio), rel=1e-9)
    assert found.reach.value == pytest.approx(math.log(20) / -math.log(ratio), rel=1e-6)
    assert found.reach.label is Label.ESTIMATE and found.sequence == 120


def test_a_map_that_is_one_at_every_step_has_no_null_of_layers_drawn_one_by_one() -> None:
    weight = 0.9 * torch.linalg.qr(seeded(6, 6)).Q
    found = measured(Linear(weight), seeded(3, 6, seed=1), seeded(40, 3, 6, seed=2)).network.null_log_gain
    assert found.value is None and "one map" in found.outcome


def test_a_memory_longer_than_the_sequence_is_a_lower_bound() -> None:
    weight = torch.linalg.qr(seeded(4, 4)).Q
    found = measured(Linear(weight), seeded(2, 4, seed=1), 0.01 * seeded(60, 2, 4, seed=2))
    assert found.time is not None
    assert (found.time.reach.label, found.time.reach.value) == (Label.LOWER, 60.0)
    assert found.time.half_life.value is None or found.time.half_life.value > 1e6
    assert [e.value for e in found.lyapunov.qr] == pytest.approx([0.0] * 4, abs=1e-12)


def test_an_equilibrium_attracts_at_the_rate_of_its_spectral_radius() -> None:
    axes = torch.linalg.qr(seeded(4, 4)).Q
    weight = axes @ torch.diag(torch.tensor([0.7, 0.2, -0.1, 0.05], dtype=F64)) @ axes.T
    drive = seeded(3, 4, seed=1)
    found = measured(Linear(weight), torch.zeros(3, 4, dtype=F64), drive).time
    assert found is not None and not found.driven and found.fixed_point is not None
    assert found.outcome == "collapsed to a fixed point"
    assert found.fixed_point.spectral_radius.value == pytest.approx(0.7, abs=1e-6)
    assert found.fixed_point.contraction.value == pytest.approx(math.log(0.7), abs=1e-5)
    assert (found.fixed_point.movement.value or 0.0) < 1e-12


def test_a_state_held_by_an_exact_zero_rests_at_an_unstable_fixed_point() -> None:
    weight = 1.5 * torch.linalg.qr(seeded(4, 4)).Q
    found = measured(Map(lambda h: torch.tanh(h @ weight.T)), torch.zeros(2, 4, dtype=F64)).time
    assert found is not None and found.fixed_point is not None
    assert found.fixed_point.spectral_radius.value == pytest.approx(1.5, abs=1e-9)
    assert found.outcome.startswith("an unstable fixed point")


def test_a_float32_cycle_of_a_chaotic_map_is_named() -> None:
    found = measured(Map(lambda x: 4.0 * x * (1 - x)), torch.tensor([[24 / 61]])).time
    assert found is not None and found.outcome.startswith("a float32 cycle of period 436: rounding")


def test_inputs_that_end_differently_are_counted() -> None:
    # x -> x^2: starts below 1 go to 0, a start above 1 leaves every bound.
    found = measured(Map(lambda x: x * x), torch.tensor([[0.5], [0.9], [1.5]], dtype=F64)).time
    assert found is not None
    assert "1 of 3 inputs: diverged at Map t=11" in found.outcome  # 1.5^(2^11) passes the largest double
    assert "2 of 3 inputs" in found.outcome and "go on" not in found.outcome


def test_a_map_that_wanders_has_no_fixed_point() -> None:
    found = measured(Map(lambda x: 3.9 * x * (1 - x)), torch.tensor([[0.3], [0.4]], dtype=F64))
    assert found.time is not None and found.time.fixed_point is None
    leading = found.lyapunov.qr[0]
    assert leading.value is not None and leading.error is not None
    assert abs(leading.value - 0.4945) < 4 * leading.error + 1e-3  # Sprott 2003, logistic map at 3.9
    assert found.lyapunov.kaplan_yorke_dimension.value == 1.0
    assert found.lyapunov.expansion_sum.value == pytest.approx(leading.value)


def test_where_every_direction_shrinks_the_dimension_is_plainly_zero() -> None:
    dimension = measured(Linear(0.9 * torch.eye(3, dtype=F64)), seeded(4, 3), seeded(60, 4, 3)).lyapunov
    assert dimension.kaplan_yorke_dimension.value == dimension.kaplan_yorke_dimension.error == 0


def test_rotations_have_the_dimension_of_their_space_and_no_doubt_about_it() -> None:
    turn = torch.tensor([0.1, 0.2])
    dimension = measured(Map(lambda x: torch.remainder(x + turn, 1)), seeded(4, 2).float()).lyapunov
    assert dimension.kaplan_yorke_dimension.value == 2
    assert dimension.kaplan_yorke_dimension.error == pytest.approx(0, abs=0.01)


def test_an_exponent_that_may_be_zero_leaves_the_dimension_in_doubt() -> None:
    # A driven network at its edge: whether the leading exponent is positive is not known from so few steps.
    torch.manual_seed(0)
    layer = nn.RNN(2, 12).double()
    with torch.no_grad():
        layer.weight_hh_l0.copy_(1.25 * seeded(12, 12) / 12**0.5)
    found = measured(layer, 0.3 * seeded(60, 4, 2, seed=1), k=12).lyapunov
    leading, dimension = found.qr[0], found.kaplan_yorke_dimension
    assert leading.value is not None and leading.error is not None and abs(leading.value) < leading.error
    assert dimension.error is not None and dimension.error > 0.5


def test_where_tangents_are_not_finite_the_dimension_says_so() -> None:
    layer = nn.GRU(2, 3).double()
    with torch.no_grad():
        layer.weight_hh_l0[0, 0] = math.nan
    dimension = measured(layer, seeded(20, 2, 2)).lyapunov.kaplan_yorke_dimension
    assert dimension.value is None and "not finite" in dimension.outcome


def test_henon_expands_one_direction_and_meets_tangencies() -> None:
    henon = Map(lambda s: torch.stack([1 - 1.4 * s[..., 0] ** 2 + s[..., 1], 0.3 * s[..., 0]], -1))
    found = measured(henon, 0.1 * seeded(4, 2)).time
    assert found is not None and found.splitting == 1
    assert found.least_angle.label is Label.UPPER and 0 <= (found.least_angle.value or 9) < 0.05
    assert found.mean_angle.value == pytest.approx(0.943, abs=0.05)  # a brute-force run of 20,000 steps gave 0.9433
    assert sum(found.angle_shares) == pytest.approx(1.0)


def test_lost_directions_have_no_covariant_vectors_but_the_others_do() -> None:
    layer = nn.LSTM(2, 3).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.bias_ih_l0[3:6] = 1.0
    found = measured(layer, seeded(80, 2, 2), k=6)
    gate = -math.log1p(math.exp(-1.0))
    assert [e.value for e in found.lyapunov.qr] == pytest.approx([gate] * 3 + [-math.inf] * 3, abs=1e-9)
    assert found.time is not None and len(found.time.angles) == 2
    gates = {each.name: each for each in found.time.gates}
    assert gates["forget gate"].mean.value == pytest.approx(1 / (1 + math.exp(-1.0)))
    assert gates["input gate"].closed.value == gates["input gate"].open.value == 0.0


def test_an_open_forget_gate_counts_as_open() -> None:
    layer = nn.LSTM(2, 3).double()
    with torch.no_grad():
        layer.bias_ih_l0[3:6] = 50.0
        layer.bias_ih_l0[0:3] = -50.0
    found = measured(layer, seeded(30, 2, 2), effort="quick").time
    assert found is not None
    gates = {each.name: each for each in found.gates}
    assert gates["forget gate"].open.value == 1.0 and gates["input gate"].closed.value == 1.0


def test_states_that_overflow_grew_until_then() -> None:
    found = measured(Linear(3.0 * torch.eye(2)), seeded(4, 2).float(), seeded(200, 4, 2).float()).time
    assert found is not None and found.outcome.count("diverged") == 1 and found.size_growth.value is not None
    # As fast as neighbours part: no chaos.
    assert found.size_growth.value == pytest.approx(math.log(3), abs=0.05)


def test_the_sum_of_exponents_is_known_to_rounding_and_no_better() -> None:
    total = measured(Map(lambda x: 1.001 * x), seeded(4, 3).float()).lyapunov.sum
    assert total.value is not None and total.error is not None
    assert abs(total.value - 3 * math.log(1.001)) < 2 * total.error < 1e-6


def test_a_value_that_is_no_number_is_left_out_of_the_use_of_gates_and_said_to_be() -> None:
    sequence = seeded(30, 4, 2)
    sequence[20, 0, 0] = math.nan
    found = measured(nn.LSTM(2, 3).double(), sequence, effort="quick")
    assert found.time is not None
    for gate in found.time.gates:
        assert gate.mean.value is not None and 0 < gate.mean.value < 1
        assert "non-finite in 3 of" in gate.mean.outcome and gate.open.outcome == gate.mean.outcome
    assert found.lyapunov.expansion_sum.error is None
    sequence[:] = math.nan
    nowhere = measured(nn.LSTM(2, 3).double(), sequence, effort="quick").time
    assert nowhere is not None and all(gate.mean.value is None for gate in nowhere.gates)


def test_quick_effort_leaves_directions_out_and_says_why() -> None:
    found = measured(nn.GRU(2, 3).double(), seeded(60, 2, 2), effort="quick").time
    assert found is not None and not found.angles
    assert "standard" in found.least_angle.outcome


def test_only_systems_over_time_have_the_chapter() -> None:
    from dynstab.systems.depth import depth_system

    network = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3)).double()
    assert measure(depth_system(network, (seeded(2, 3),)).trajectory, Config(k=2)).time is None


def test_long_sequences_decompose_no_more_steps_than_short_ones() -> None:
    layer = nn.GRU(2, 4).double()
    short, long = (measured(layer, seeded(steps, 2, 2), effort="quick") for steps in (150, 600))
    assert len(short.steps) == len(long.steps) == 100
    assert short.time is not None and long.time is not None and long.time.steps == 599 - 119


@pytest.mark.parametrize(
    ("layer", "inputs", "effort"),
    [(nn.LSTM, 8, "standard"), (nn.LSTM, 4, "quick"), (nn.RNN, 3, "standard")],
    ids=["LSTM", "quick LSTM", "RNN"],
)
def test_the_products_planned_for_a_recurrence_are_those_it_takes_within_a_factor_of_two(
    layer: Callable[[int, int], nn.Module], inputs: int, effort: Literal["quick", "standard"]
) -> None:
    torch.manual_seed(0)
    trajectory = time_system(layer(4, 16), (torch.randn(150, inputs, 4),)).trajectory
    config, whole = Config(effort=effort), trajectory.whole
    assert whole is not None and len(whole.steps) > len(trajectory.steps)  # more than the window that is looked at
    planned = planned_products(trajectory, config)
    before = sum(step.jacobian.products for each in (trajectory, whole) for step in each.steps)
    measure(trajectory, config)
    spent = sum(step.jacobian.products for each in (trajectory, whole) for step in each.steps) - before
    assert spent / 2 < planned < 2 * spent
