"""Exponents of whole trajectories."""

from __future__ import annotations

from math import log

import pytest
import torch

from dynstab.core.config import Config
from dynstab.core.estimate import Label
from dynstab.measures import measure


def gaussian(samples: int, size: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, size, size, generator=generator, dtype=torch.float64) / size**0.5


def values(estimates) -> list[float]:
    return [estimate.value for estimate in estimates]


def test_diagonal_steps_have_the_logarithms_of_their_multipliers(chain):
    multipliers = torch.tensor([2.0, 1.0, 0.5], dtype=torch.float64)
    found = measure(chain([torch.diag(multipliers)[None]] * 5), Config(k=3)).lyapunov
    assert values(found.finite_time) == pytest.approx([log(2), 0.0, -log(2)])
    assert found.sum.value == pytest.approx(0.0, abs=1e-12)
    assert found.expansion_sum.value == pytest.approx(log(2))


def test_orthogonal_chain_has_zero_exponents_of_both_kinds(chain):
    matrices = [torch.linalg.qr(gaussian(2, 8, seed)).Q for seed in range(30)]
    found = measure(chain(matrices), Config(k=8)).lyapunov
    assert values(found.qr) == pytest.approx([0.0] * 8, abs=1e-12)
    assert values(found.finite_time) == pytest.approx([0.0] * 8, abs=1e-12)


def test_both_kinds_sum_to_the_logarithm_of_the_determinant(chain):
    matrices = [gaussian(3, 6, seed) for seed in range(20)]
    found = measure(chain(matrices), Config(k=6))
    expected = sum(float(torch.linalg.slogdet(matrix).logabsdet.mean()) for matrix in matrices)
    assert found.lyapunov.sum.value == pytest.approx(expected / 20)
    assert sum(values(found.lyapunov.qr)) == pytest.approx(expected / 20)
    assert sum(values(found.lyapunov.finite_time)) == pytest.approx(expected / 20)
    assert found.network.log_determinant.value == pytest.approx(expected)
    assert found.lyapunov.sum.label is Label.EXACT


def test_leading_qr_exponent_is_at_most_the_finite_time_one(chain):
    matrices = [gaussian(4, 16, seed) for seed in range(40)]
    found = measure(chain(matrices), Config(k=1)).lyapunov
    assert found.qr[0].value <= found.finite_time[0].value


def test_a_condition_of_ten_to_the_fifty_is_no_obstacle(chain):
    torch.manual_seed(1)
    base = torch.linalg.qr(gaussian(1, 4, 0)).Q
    spread = torch.diag(torch.tensor([1e1, 1.0, 1e-2, 1e-4], dtype=torch.float64))
    matrices = [base @ spread @ base.mT] * 10
    found = measure(chain(matrices), Config(k=4))
    assert values(found.lyapunov.finite_time) == pytest.approx([log(1e1), 0.0, log(1e-2), log(1e-4)], abs=1e-9)
    assert found.network.largest_singular_values[0].value == pytest.approx(1e10, rel=1e-8)
    assert found.network.smallest_singular_value.value == pytest.approx(1e-40, rel=1e-6)


@pytest.mark.usefixtures("matrix_free")
def test_matrix_free_exponents_agree_with_the_dense_chain(chain):
    matrices = [torch.eye(50).double() + 0.4 * gaussian(1, 50, seed) for seed in range(6)]
    product = torch.eye(50, dtype=torch.float64)
    for matrix in matrices:
        product = matrix[0] @ product
    exact = torch.linalg.svdvals(product).log() / 6
    found = measure(chain(matrices), Config(k=3)).lyapunov.finite_time
    assert values(found) == pytest.approx(exact[:3].tolist(), abs=2e-3)
    assert all(estimate.label is not Label.EXACT for estimate in found)


@pytest.mark.usefixtures("matrix_free")
def test_an_expansion_sum_that_is_cut_off_is_a_lower_bound(chain):
    trajectory = chain([2 * torch.eye(12, dtype=torch.float64)[None]] * 4)
    cut = measure(trajectory, Config(k=3)).lyapunov.expansion_sum
    assert cut.label is Label.LOWER
    assert cut.value == pytest.approx(3 * log(2), rel=1e-6)


def test_a_singular_step_has_an_exponent_of_minus_infinity_as_data(chain):
    matrices = [torch.diag(torch.tensor([2.0, 0.0], dtype=torch.float64))[None]] * 3
    found = measure(chain(matrices), Config(k=2)).lyapunov
    assert values(found.finite_time) == pytest.approx([log(2), -float("inf")])
    assert found.finite_time[1].outcome == "converged"
    assert found.sum.value == -float("inf")


def test_the_smallest_nonzero_singular_value_of_a_singular_network_is_not_zero(chain):
    steps = torch.diag_embed(torch.tensor([[2.0, 0.5, 0.0], [2.0, 0.5, 0.25]], dtype=torch.float64))
    found = measure(chain([steps] * 3), Config(k=3)).network.smallest_singular_value
    # 1/8 at the first input, 1/64 at the second; their geometric mean.
    assert found.value == pytest.approx((2.0**-3 * 2.0**-6) ** 0.5)


def test_a_singular_value_below_float64_is_told_by_its_logarithm(chain):
    found = measure(chain([torch.diag(torch.tensor([1.0, 1e-9], dtype=torch.float64))[None]] * 50), Config(k=2)).network
    assert found.smallest_singular_value.value is None
    assert f"{-450 * log(10):.4g}" in found.smallest_singular_value.outcome


def test_a_direction_lost_in_float32_is_lost_although_exponents_are_float64(chain):
    unit = torch.nn.functional.normalize(torch.arange(1.0, 9.0), dim=0)
    projector = torch.eye(8) - torch.outer(unit, unit)  # singular up to float32's rounding, not float64's
    rotations = [torch.linalg.qr(gaussian(1, 8, seed)).Q.float() for seed in range(4)]
    found = measure(chain([rotation @ projector for rotation in rotations]), Config(k=8)).lyapunov
    assert values(found.finite_time)[-1] == values(found.qr)[-1] == -float("inf")
    assert all(value > -20 for value in values(found.finite_time)[:4])


def test_a_determinant_lost_in_float32_is_an_upper_bound_of_the_sum_beside_it(chain):
    rotations = [torch.linalg.qr(gaussian(1, 6, seed)).Q.float() for seed in range(8)]
    scales = torch.tensor([1.0, 1.0, 0.5, 0.5, 0.1, 1e-9])
    # Graded by columns: every step's smallest singular value is data, but below what float32 lets one tell from zero.
    found = measure(chain([rotation * scales for rotation in rotations]), Config(k=6))
    true = 8 * float(scales.double().log().sum())
    for estimate, steps in ((found.network.log_determinant, 1), (found.lyapunov.sum, 8)):
        assert estimate.label is Label.UPPER and estimate.error == 0.0
        assert estimate.value is not None and true / steps < estimate.value < 0
        assert "singular to rounding" in estimate.method


def test_one_dead_step_or_input_makes_the_determinant_zero_whatever_rounding_hides_elsewhere(chain):
    lost, dead = torch.diag(torch.tensor([1.0, 1e-9])), torch.diag(torch.tensor([1.0, 0.0]))
    steps = measure(chain([lost[None], dead[None]]), Config(k=2)).network.log_determinant
    inputs = measure(chain([torch.stack([lost, dead])] * 2), Config(k=2)).network.log_determinant
    for estimate in (steps, inputs):
        assert estimate.value == -float("inf") and estimate.label is Label.EXACT and estimate.outcome == "converged"


def test_where_sizes_change_there_is_no_sum(chain):
    generator = torch.Generator().manual_seed(0)
    matrices = [torch.randn(1, 4, 6, generator=generator).double(), torch.randn(1, 4, 4, generator=generator).double()]
    found = measure(chain(matrices), Config(k=8))
    assert len(found.lyapunov.qr) == len(found.lyapunov.finite_time) == 4
    assert not found.lyapunov.sum.measured and not found.network.log_determinant.measured


def test_henon_attractor_has_its_known_exponents_and_dimension(chain):
    x = torch.tensor([0.1, 0.1], dtype=torch.float64)
    matrices = []
    for step in range(2200):
        if step >= 1000:
            matrices.append(torch.tensor([[[-2.8 * x[0], 1.0], [0.3, 0.0]]], dtype=torch.float64))
        x = torch.stack([1 - 1.4 * x[0] ** 2 + x[1], 0.3 * x[0]])
    trajectory = chain(matrices, torch.ones(1, 2, dtype=torch.float64), kind="time")
    found = measure(trajectory, Config(k=2, effort="quick")).lyapunov
    assert found.qr[0].value == pytest.approx(0.41922, abs=0.03)
    assert found.sum.value == pytest.approx(log(0.3), abs=1e-12)
    assert found.kaplan_yorke_dimension.value == pytest.approx(1.2583, abs=0.02)


def test_kaplan_yorke_is_for_dynamics_in_time(chain):
    found = measure(chain([gaussian(1, 3, 0)]), Config()).lyapunov
    assert found.kaplan_yorke_dimension.outcome == "defined for dynamics in time"
