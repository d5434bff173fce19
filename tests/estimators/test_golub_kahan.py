from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynstab.core.estimate import CONVERGED, Label
from dynstab.estimators.golub_kahan import largest_singular_values, smallest_singular_values
from dynstab.linear.operator import DenseOperator


def gaussian(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize(("rows", "cols"), [(60, 60), (90, 40), (40, 90)])
def test_leading_values_and_vectors_equal_the_dense_ones(rows: int, cols: int) -> None:
    matrices = gaussian(3, rows, cols)
    found = largest_singular_values(DenseOperator(matrices), 6, rtol=1e-9, budget=10_000)
    assert found.outcome == CONVERGED and found.label is Label.CERTIFIED
    torch.testing.assert_close(found.values, torch.linalg.svdvals(matrices)[:, :6], rtol=1e-12, atol=0)
    torch.testing.assert_close(matrices @ found.right, found.left * found.values[:, None, :], rtol=0, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 24),
    st.integers(1, 24),
    st.integers(1, 10),
    st.integers(0, 24),
    st.integers(0, 10_000),
    st.booleans(),
)
def test_ritz_values_bound_from_below_and_residuals_reach_a_singular_value(
    rows: int, cols: int, k: int, rank: int, seed: int, single: bool
) -> None:
    dtype = torch.float32 if single else torch.float64
    matrix = (gaussian(1, rows, rank, seed=seed) @ gaussian(1, rank, cols, seed=seed + 1)).to(dtype)
    true = torch.linalg.svdvals(matrix.double())
    found = largest_singular_values(DenseOperator(matrix), k, budget=10_000)
    assert found.values.shape == (1, min(k, rows, cols))
    slack = 64 * torch.finfo(dtype).eps * true[0, 0]
    assert bool((found.values <= true[:, : found.values.shape[1]] + slack).all())
    nearest = (found.values[:, :, None] - true[:, None, :]).abs().amin(dim=2)
    assert bool((nearest <= found.errors + slack).all())


def test_near_the_identity_the_error_bound_still_covers() -> None:
    matrices = torch.eye(80, dtype=torch.float64) + 0.02 * gaussian(4, 80, 80)
    found = largest_singular_values(DenseOperator(matrices), 8, rtol=1e-3)
    true = torch.linalg.svdvals(matrices)[:, :8]
    assert bool(((true - found.values).abs() <= found.errors).all())
    assert bool(((true - found.values).abs() < 1e-4).all())


def test_every_singular_value_of_the_identity_is_found_although_the_first_block_is_invariant() -> None:
    found = largest_singular_values(DenseOperator(torch.eye(40, dtype=torch.float64)), 40)
    torch.testing.assert_close(found.values, torch.ones(1, 40, dtype=torch.float64))


def test_zero_operator_has_zero_singular_values_with_no_error() -> None:
    found = largest_singular_values(DenseOperator(torch.zeros(2, 30, 20)), 3)
    assert found.outcome == CONVERGED and not found.values.any() and not found.errors.any()


def test_rank_below_k_leaves_zeros_within_rounding() -> None:
    matrix = gaussian(1, 30, 3) @ gaussian(1, 3, 30, seed=1)
    found = largest_singular_values(DenseOperator(matrix), 6)
    true = torch.linalg.svdvals(matrix)[:, :6]
    assert bool((found.values - true).abs().amax() <= found.errors.amax())


def test_a_budget_that_is_too_small_is_named_and_the_residual_says_how_far_it_got() -> None:
    matrix = gaussian(1, 300, 300)
    found = largest_singular_values(DenseOperator(matrix), 8, rtol=1e-8, budget=50)
    true = torch.linalg.svdvals(matrix)[:, :8]
    assert "budget" in found.outcome and found.products <= 50
    assert bool((found.values <= true).all()) and bool((found.errors > 1e-6).any())


def test_warm_start_from_the_answer_needs_one_block() -> None:
    matrix = gaussian(1, 100, 100)
    cold = largest_singular_values(DenseOperator(matrix), 8, rtol=1e-6, budget=1000)
    warm = largest_singular_values(DenseOperator(matrix), 8, rtol=1e-4, start=cold.right)
    assert warm.products < cold.products / 4
    torch.testing.assert_close(warm.values, cold.values, rtol=1e-6, atol=0)


def test_half_precision_is_worked_on_in_single_precision() -> None:
    matrix = gaussian(1, 40, 40, dtype=torch.bfloat16)
    found = largest_singular_values(DenseOperator(matrix), 2)
    true = torch.linalg.svdvals(matrix.double())[:, :2]
    assert bool(((found.values - true).abs() <= found.errors).all())


def test_smallest_values_of_a_benign_matrix_are_found_from_above() -> None:
    matrix = torch.eye(60, dtype=torch.float64) + 0.05 * gaussian(2, 60, 60)
    found = smallest_singular_values(DenseOperator(matrix), 2, rtol=1e-4, budget=200)
    true = torch.linalg.svdvals(matrix)[:, -2:].flip(1)
    assert bool((found.values >= true - 1e-12).all())
    torch.testing.assert_close(found.values, true, rtol=1e-4, atol=0)


def test_smallest_value_of_an_ill_conditioned_matrix_is_called_no_more_than_an_upper_bound() -> None:
    q = torch.linalg.qr(gaussian(1, 400, 400)).Q
    sizes = torch.logspace(0, -9, 400, dtype=torch.float64)
    found = smallest_singular_values(DenseOperator(q * sizes), 1, budget=160)
    assert found.label is Label.UPPER and "upper bound only" in found.outcome
    assert float(found.values) > 1e-9


@pytest.mark.parametrize(("rows", "cols"), [(30, 21), (21, 30), (25, 25)])
def test_smallest_value_is_certified_once_the_basis_fills_the_space(rows: int, cols: int) -> None:
    matrix = gaussian(2, rows, cols)
    found = smallest_singular_values(DenseOperator(matrix), 1, rtol=1e-12, budget=10_000)
    assert found.label is Label.CERTIFIED
    torch.testing.assert_close(found.values, torch.linalg.svdvals(matrix)[:, -1:], rtol=1e-9, atol=0)
