"""Lyapunov functions of systems for which P, the region and the violations are known."""

from __future__ import annotations

from math import inf, pi, sqrt
from typing import Any

import pytest
import torch
from torch import Tensor

import dynstab
from dynstab import DynstabError, lyapunov_function
from dynstab.core.estimate import Label
from dynstab.estimators.metric import lyapunov_matrix, metric_gain, metric_logarithmic_norm

F64 = torch.float64


def pendulum(t: float, x: Tensor) -> Tensor:
    return torch.stack([x[1], -torch.sin(x[0]) - 0.5 * x[1]])


def energy(x: Tensor) -> Tensor:
    return x[1] ** 2 / 2 + 1 - torch.cos(x[0])


def cubic(t: float, x: Tensor) -> Tensor:
    return -x + x**3


def origin(size: int) -> Tensor:
    return torch.zeros(size, dtype=F64)


def test_the_metric_of_a_diagonal_map_is_the_sum_of_a_geometric_series() -> None:
    a = torch.tensor([0.5, -0.8], dtype=F64)
    found = lyapunov_function(lambda x: a * x, origin(2) + 0.3)
    assert found.P is not None
    assert torch.allclose(found.P, torch.diag(1 / (1 - a**2)))
    assert found.stable
    assert found.spectral.value == pytest.approx(0.8)
    assert found.contraction.value == pytest.approx(0.8)
    assert found.violations.value == found.trajectories_violating.value == 0
    assert found.level.value == inf
    assert found.level.label is Label.UPPER


def test_the_damped_oscillator_has_the_textbook_p() -> None:
    # x'' + c x' + x = 0: A^T P + P A = -I has P = [[(c + 2/c)/2, 1/2], [1/2, 1/c]].
    c = 0.5
    found = lyapunov_function(lambda t, x: torch.stack([x[1], -x[0] - c * x[1]]), origin(2), time=10.0, dt=0.05)
    assert found.P is not None
    assert torch.allclose(found.P, torch.tensor([[(c + 2 / c) / 2, 0.5], [0.5, 1 / c]], dtype=F64))
    assert found.spectral.value == pytest.approx(-c / 2)
    # -1 / lambda_max(P) is the slowest decay of V/2 along the flow, and bounds the logarithmic norm in P from above.
    assert found.contraction.value == pytest.approx(-0.5 / torch.linalg.eigvalsh(found.P)[-1].item())
    assert found.violations.value == 0


def test_q_sets_the_decrease_that_p_has() -> None:
    jacobian = torch.tensor([[0.5, 2.0], [0.0, 0.3]], dtype=F64)
    q = torch.diag(torch.tensor([1.0, 3.0], dtype=F64))
    found = lyapunov_function(lambda x: jacobian @ x, origin(2), q=q)
    assert found.P is not None
    assert torch.allclose(jacobian.T @ found.P @ jacobian - found.P, -q)


def test_a_non_normal_map_contracts_in_its_own_metric_though_not_in_the_euclidean_one() -> None:
    jacobian = torch.tensor([[0.5, 5.0], [0.0, 0.5]], dtype=F64)
    p = lyapunov_matrix(jacobian)
    assert p is not None
    assert torch.linalg.matrix_norm(jacobian, 2) > 5
    # J^T P J = P - I, so that the gain in P is sqrt(1 - 1/lambda_max(P)) exactly.
    assert metric_gain(jacobian, p) == pytest.approx(sqrt(1 - 1 / torch.linalg.eigvalsh(p)[-1].item()))
    field = jacobian - torch.eye(2, dtype=F64)
    p = lyapunov_matrix(field, continuous=True)
    assert p is not None
    assert metric_logarithmic_norm(field, p) < 0 < torch.linalg.eigvalsh((field + field.T) / 2)[-1]


def test_the_cubic_field_is_certified_to_the_unstable_points_and_no_further() -> None:
    # x' = -x + x^3 with P = 1/2: V falls for |x| < 1 alone, V(1) = 1/2.
    found = lyapunov_function(cubic, torch.tensor([0.2], dtype=F64), time=4.0, dt=0.02)
    assert found.P is not None
    assert found.P.item() == pytest.approx(0.5)
    assert found.level.value == pytest.approx(0.5, rel=1e-6)
    assert found.level.label is Label.UPPER
    # Starts are uniform in |x| < 2: half of them run away, each with at least one step against V.
    share, error = found.trajectories_violating.value, found.trajectories_violating.error
    assert share is not None
    assert error is not None
    assert abs(share - 0.5) <= 4 * error


def test_the_pendulum_keeps_its_energy_as_lyapunov_function_and_the_quadratic_one_to_a_bounded_level() -> None:
    quadratic = lyapunov_function(pendulum, origin(2) + 0.1, time=5.0, dt=0.05, reach=5.0)
    assert quadratic.P is not None
    saddle = torch.tensor([pi, 0.0], dtype=F64)
    # No sublevel set that holds the saddle can be free of violations.
    assert quadratic.level.value is not None
    assert 0 < quadratic.level.value <= (saddle @ quadratic.P @ saddle).item()
    by_energy = lyapunov_function(pendulum, origin(2) + 0.1, time=5.0, dt=0.05, reach=3.0, V=energy)
    assert by_energy.P is None
    assert by_energy.violations.value == 0
    assert by_energy.level.value == inf


def test_a_v_that_is_none_is_caught_along_trajectories() -> None:
    found = lyapunov_function(pendulum, origin(2), time=5.0, dt=0.05, reach=1.0, V=lambda x: x[0] ** 2)
    assert found.violations.value is not None
    assert found.violations.value > 0.2
    assert found.level.value is not None
    assert found.level.value < 1e-2


def test_starts_of_the_user_are_followed() -> None:
    inside = torch.tensor([[0.9], [-0.5]], dtype=F64)
    found = lyapunov_function(cubic, origin(1), time=4.0, dt=0.02, starts=inside)
    assert found.violations.value == 0
    outside = torch.tensor([[1.1], [-0.5]], dtype=F64)
    found = lyapunov_function(cubic, origin(1), time=1.0, dt=0.02, starts=outside)
    assert found.trajectories_violating.value == 0.5


def test_a_recurrent_network_settles_in_its_own_metric() -> None:
    torch.manual_seed(0)
    cell = torch.nn.Linear(24, 24)
    with torch.no_grad():
        cell.weight.mul_(1.2)
    found = dynstab.lyapunov_function(lambda h: torch.tanh(cell(h)), torch.zeros(24), steps=30)
    step = torch.tanh(cell(found.fixed_point))
    assert torch.allclose(step, found.fixed_point, atol=1e-5)
    assert found.stable
    assert found.contraction.value is not None
    assert found.spectral.value is not None
    assert found.spectral.value <= found.contraction.value < 1


def test_an_unstable_fixed_point_says_so_and_has_no_p() -> None:
    found = lyapunov_function(lambda x: 1.2 * x + 0.1, torch.ones(3))
    assert found.stable is False
    assert found.P is None
    assert "spectral radius 1.2" in found.outcome
    assert found.spectral.value == pytest.approx(1.2)
    assert not found.level.measured
    assert "no P exists" in found.level.outcome
    assert torch.allclose(found.fixed_point, torch.full((3,), -0.5))


def test_a_centre_is_not_asymptotically_stable() -> None:
    found = lyapunov_function(lambda t, x: torch.stack([x[1], -x[0]]), origin(2), time=1.0)
    assert found.stable is False
    assert found.P is None


def test_a_map_without_a_fixed_point_is_an_outcome() -> None:
    found = lyapunov_function(lambda x: x * x + 1, torch.ones(2))
    assert found.stable is None
    assert "no fixed point" in found.outcome
    assert not found.violations.measured


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"q": torch.eye(3)}, "symmetric positive definite"),
        ({"q": -torch.eye(2)}, "symmetric positive definite"),
        ({"steps": 0}, "at least one step"),
        ({"steps": 3, "time": 1.0}, "steps of a map"),
        ({"samples": 0}, "at least one"),
        ({"starts": torch.zeros(4, 5)}, "(m, 2)"),
        ({"V": lambda x: x}, "one number"),
    ],
)
def test_bad_arguments_get_one_sentence(options: dict[str, object], words: str) -> None:
    with pytest.raises(DynstabError, match=words.replace("(", r"\(").replace(")", r"\)")):
        lyapunov_function(lambda x: 0.5 * x, torch.ones(2), **options)  # type: ignore[arg-type]


def test_the_result_reads_as_a_table() -> None:
    text = str(lyapunov_function(lambda x: 0.5 * x, torch.ones(2)))
    assert "spectral radius" in text
    assert "0.5" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("size", [4, 6, 10])
def test_the_spectral_radius_of_a_jordan_block_has_the_error_that_rounding_makes_there(size: int) -> None:
    turn = torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(0), dtype=F64)).Q
    block = turn @ (0.9 * torch.eye(size, dtype=F64) + torch.diag(torch.ones(size - 1, dtype=F64), 1)) @ turn.T
    found = lyapunov_function(lambda x: block @ x, origin(size))
    assert found.spectral.value is not None and found.spectral.error is not None
    assert 1e-6 < abs(found.spectral.value - 0.9) < found.spectral.error
    # Stable it is: never said not to be, and where P is lost the reason is rounding.
    assert found.stable is not False
    assert found.P is not None or ("to rounding" in found.outcome and "is not below" not in found.outcome)


def test_numbers_of_a_float32_system_have_the_error_of_float32() -> None:
    found = lyapunov_function(lambda x: torch.tanh(0.8 * x), torch.zeros(2))
    assert found.contraction.error is not None and found.contraction.error > 1e-8
    assert found.spectral.error is not None and found.spectral.error > 1e-8


def test_a_field_that_depends_on_t_is_refused() -> None:
    with pytest.raises(DynstabError, match="depends on t.*part of the state"):
        lyapunov_function(lambda t, x: -x * (1 + t), origin(1), time=5.0)


@pytest.mark.parametrize("options", [{"reach": 0.0}, {"reach": -1.0}, {"reach": inf}, {"q": [[1.0]]}])
def test_a_reach_or_a_metric_that_is_none_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(DynstabError, match="expected"):
        lyapunov_function(lambda x: 0.5 * x, origin(1), **options)
