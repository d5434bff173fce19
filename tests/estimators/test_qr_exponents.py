from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynstab.estimators.finite_time import dense_log_singular_values
from dynstab.estimators.qr import qr_exponents
from dynstab.estimators.qr_result import batch_means_error
from dynstab.linear.operator import DenseOperator


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def chain(matrices: torch.Tensor) -> list[DenseOperator]:
    return [DenseOperator(matrix) for matrix in matrices]


def newman(size: int) -> torch.Tensor:
    i = torch.arange(1, size + 1, dtype=torch.float64)
    return 0.5 * (torch.special.digamma((size - i + 1) / 2) + torch.log(torch.tensor(2 / size)))


def test_orthogonal_chain_has_zero_exponents() -> None:
    found = qr_exponents(chain(torch.linalg.qr(gaussian(50, 2, 10, 10)).Q))
    assert float(found.values.abs().max()) < 1e-14


def test_diagonal_map_has_the_logarithms_of_its_multipliers() -> None:
    multipliers = torch.tensor([2.0, 0.5, 1e-3], dtype=torch.float64)
    found = qr_exponents(chain(torch.diag(multipliers).expand(400, 1, 3, 3)), frame=torch.eye(3).double()[None])
    torch.testing.assert_close(found.values[0], multipliers.log(), rtol=1e-13, atol=1e-13)


def test_tied_linear_map_has_the_logarithms_of_its_eigenvalues() -> None:
    basis = gaussian(4, 4)
    values = torch.tensor([1.5, 0.9, 0.4, 0.05], dtype=torch.float64)
    matrix = basis @ torch.diag(values) @ torch.linalg.inv(basis)
    found = qr_exponents(chain(matrix.expand(4000, 1, 4, 4)))
    torch.testing.assert_close(found.values[0], values.log(), rtol=0, atol=2e-3)


def test_gaussian_chain_follows_newmans_formula_within_its_errors() -> None:
    size, samples, steps = 16, 40, 100
    found = qr_exponents(chain(gaussian(steps, samples, size, size) / size**0.5), longest=1)
    unsorted = found.logs.mean(dim=1)
    i = torch.arange(1, size + 1, dtype=torch.float64)
    scale = (torch.special.polygamma(1, (size - i + 1) / 2) / (4 * steps * samples)).sqrt()
    assert bool(((unsorted.mean(dim=0) - newman(size)) / scale).abs().max() < 4)
    # The batch-means errors are those of the formula, too.
    torch.testing.assert_close(found.errors.square().mean(dim=0).sqrt() / samples**0.5, scale, rtol=0.35, atol=0)


def test_long_intervals_cost_no_accuracy() -> None:
    matrices = gaussian(120, 1, 12, 12) / 12**0.5
    every = qr_exponents(chain(matrices), longest=1)
    rarely = qr_exponents(chain(matrices), longest=100)
    assert len(rarely.lengths) < 40 and sum(rarely.lengths) == 120
    torch.testing.assert_close(rarely.values, every.values, rtol=0, atol=1e-7)


def test_an_interval_that_turns_out_too_long_is_walked_again() -> None:
    calm = torch.linalg.qr(gaussian(200, 1, 4, 4)).Q
    graded = torch.diag(torch.logspace(4, -4, 4, dtype=torch.float64)).expand(20, 1, 4, 4)
    matrices = torch.cat([calm, torch.linalg.qr(gaussian(20, 1, 4, 4, seed=1)).Q @ graded])
    every, adaptive = qr_exponents(chain(matrices), longest=1), qr_exponents(chain(matrices), longest=100)
    torch.testing.assert_close(adaptive.values, every.values, rtol=0, atol=1e-9)
    assert adaptive.products > every.products


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 8), st.integers(1, 12), st.integers(0, 10_000))
def test_partial_sums_of_qr_exponents_never_pass_those_of_finite_time_exponents(
    size: int, steps: int, seed: int
) -> None:
    operators = chain(gaussian(steps, 2, size, size, seed=seed))
    in_order = qr_exponents(operators, longest=1).logs.sum(dim=1).cumsum(dim=1)
    singular = dense_log_singular_values(operators).values.cumsum(dim=1)
    assert bool((in_order <= singular + 1e-9).all())
    torch.testing.assert_close(in_order[:, -1], singular[:, -1], rtol=1e-9, atol=1e-9)


def test_at_finite_depth_qr_and_finite_time_exponents_can_differ_in_sign() -> None:
    operators = chain(gaussian(100, 24, 64, 64) / 8)
    qr = qr_exponents(operators, 1, longest=1).values[:, 0].mean()
    finite_time = dense_log_singular_values(operators).values[:, 0].mean() / 100
    assert float(qr) == pytest.approx(-0.0080, abs=0.004)
    assert float(finite_time) == pytest.approx(0.0182, abs=0.004)


def test_a_dead_unit_gives_minus_infinity_and_leaves_the_others_right() -> None:
    matrices = gaussian(30, 2, 6, 6) / 6**0.5
    matrices[10, 0, :, 2] = 0  # one sample loses a direction, the other keeps all
    found = qr_exponents(chain(matrices))
    assert found.values.isneginf().sum(dim=1).tolist() == [1, 0]
    product = torch.eye(6, dtype=torch.float64)
    for matrix in matrices[:12, 0]:
        product = matrix @ product
    exact = dense_log_singular_values(chain(matrices[:12, :1])).values[0]
    torch.testing.assert_close(exact[:5].exp(), torch.linalg.svdvals(product)[:5], rtol=1e-10, atol=0)
    assert float(exact[5]) == -torch.inf


def test_widths_that_change_lose_what_the_narrowest_cannot_hold() -> None:
    matrices = [gaussian(1, 6, 8), gaussian(1, 9, 6, seed=1), gaussian(1, 4, 9, seed=2)]
    operators = [DenseOperator(matrix) for matrix in matrices]
    assert int(qr_exponents(operators).values.isneginf().sum()) == 4
    exact = dense_log_singular_values(operators).values
    product = matrices[2] @ matrices[1] @ matrices[0]
    torch.testing.assert_close(exact.exp(), torch.linalg.svdvals(product), rtol=1e-12, atol=0)


def test_batch_means_see_the_correlation_between_neighbours() -> None:
    noise = gaussian(1, 20_000, 1).cumsum(dim=1)
    smooth = (noise[:, 10:] - noise[:, :-10]) / 10  # moving averages: neighbours are 0.9 correlated
    error = float(batch_means_error(smooth, torch.ones(smooth.shape[1]).double()))
    assert error == pytest.approx(1 / 20_000**0.5, rel=0.5)


def test_a_chain_needs_a_step() -> None:
    with pytest.raises(ValueError, match="at least one step"):
        qr_exponents([])


def test_a_direction_lost_in_front_does_not_stand_in_the_way_of_the_others() -> None:
    dead = torch.diag(torch.tensor([2.0, 0.0, 3.0], dtype=torch.float64))
    mix = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 1.0]], dtype=torch.float64)
    identity = torch.eye(3, dtype=torch.float64)[None]
    found = qr_exponents([DenseOperator(dead), DenseOperator(mix)], frame=identity, longest=1)
    torch.testing.assert_close(found.logs.sum(dim=1)[0, :2].exp(), torch.tensor([2.0, 3.0]).double())
    assert float(found.values[0, 2]) == -torch.inf
    product = found.factors[1] @ found.factors[0]
    torch.testing.assert_close(torch.linalg.svdvals(product), torch.linalg.svdvals(mix @ dead)[None])
