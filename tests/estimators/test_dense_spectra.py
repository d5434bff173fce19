from __future__ import annotations

from math import log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynstab.core.estimate import Label
from dynstab.estimators.dense import (
    dense_spectrum,
    eigenvalues,
    matrices_of,
    spectral_abscissa,
    spectral_radius,
)
from dynstab.estimators.token_blocks import block_eigenvalues, block_log_determinant
from dynstab.linear.operator import DenseOperator, ProductOperator


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 12), st.integers(0, 10_000), st.booleans())
def test_nullity_is_columns_minus_rank(rows: int, cols: int, rank: int, seed: int, single: bool) -> None:
    matrix = gaussian(1, rows, rank, seed=seed) @ gaussian(1, rank, cols, seed=seed + 1)
    if single:
        matrix = matrix.float()
    found = dense_spectrum(matrix)
    true = min(rank, rows, cols)
    assert int(found.nullity.values) == cols - true
    smallest = float(found.smallest_nonzero.values)
    expected = float(torch.linalg.svdvals(matrix.double())[0, true - 1]) if true else 0.0
    assert smallest == pytest.approx(expected, rel=1e-12)


def test_layernorm_without_affine_has_two_null_directions() -> None:
    norm = torch.nn.LayerNorm(32, eps=0.0, elementwise_affine=False)
    jacobian = torch.func.jacrev(norm)(gaussian(32))
    assert int(dense_spectrum(jacobian[None]).nullity.values) == 2


def test_attention_with_all_tokens_equal_mixes_them_into_one() -> None:
    n, d = 5, 4
    query, key, value = gaussian(d, d, seed=1), gaussian(d, d, seed=2), gaussian(d, d, seed=3)

    def attend(x: torch.Tensor) -> torch.Tensor:
        scores = (x @ query) @ (x @ key).mT / d**0.5
        return scores.softmax(dim=-1) @ x @ value

    tokens = gaussian(1, d).expand(n, d)
    jacobian = torch.func.jacrev(attend)(tokens).reshape(n * d, n * d)
    found = dense_spectrum(jacobian[None])
    assert int(found.nullity.values) == (n - 1) * d
    torch.testing.assert_close(found.singular_values.values[0, :d], torch.linalg.svdvals(value))


def test_log_determinant_is_exact_and_minus_infinity_where_singular() -> None:
    matrix = gaussian(2, 8, 8)
    matrix[1, 3] = 0
    found = dense_spectrum(matrix).log_determinant
    assert found is not None and found.label is Label.EXACT
    assert float(found.values[0]) == pytest.approx(float(torch.linalg.det(matrix[0]).abs().log()))
    assert float(found.values[1]) == -torch.inf and float(found.errors[1]) == 0.0
    assert dense_spectrum(gaussian(1, 3, 4)).log_determinant is None


def test_eigenvalues_of_a_triangular_matrix_are_its_diagonal_within_the_error() -> None:
    diagonal = torch.tensor([-2.0, 1.5, 0.5], dtype=torch.float64)
    found = eigenvalues((torch.triu(gaussian(3, 3), 1) + torch.diag(diagonal))[None])
    assert bool(((found.values[0].real - diagonal).abs() <= found.errors[0]).all())
    assert float(spectral_radius(found).values) == pytest.approx(2.0)
    assert float(spectral_abscissa(found).values) == pytest.approx(0.5)


def test_a_defective_eigenvalue_has_an_error_that_covers_its_splitting() -> None:
    jordan = 0.9 * torch.eye(6, dtype=torch.float64) + torch.diag(torch.ones(5, dtype=torch.float64), 1)
    similarity = torch.linalg.qr(gaussian(6, 6)).Q
    found = eigenvalues((similarity @ jordan @ similarity.mT)[None])
    assert bool(((found.values - 0.9).abs() <= found.errors).all()) and float(found.errors.max()) < 0.1


def test_frobenius_norm_is_the_sum_of_squares() -> None:
    matrix = gaussian(3, 5, 7)
    torch.testing.assert_close(dense_spectrum(matrix).frobenius_squared.values[:, 0], matrix.square().sum(dim=(1, 2)))


def test_matrices_of_a_product_are_multiplied_out() -> None:
    first, second = gaussian(2, 5, 3), gaussian(2, 4, 5, seed=1)
    product = matrices_of(ProductOperator((DenseOperator(first), DenseOperator(second))))
    torch.testing.assert_close(product, second @ first)


def test_token_blocks_give_the_spectrum_of_the_causal_matrix() -> None:
    tokens, d = 4, 3
    blocks, below = gaussian(2, tokens, d, d), gaussian(2, tokens * d, tokens * d, seed=1)
    position = torch.arange(tokens).repeat_interleave(d)
    full = below * (position[:, None] > position[None, :])
    for token in range(tokens):
        at = slice(token * d, (token + 1) * d)
        full[:, at, at] = blocks[:, token]
    found, dense = block_eigenvalues(blocks), eigenvalues(full)
    for sample in range(2):
        distance = (found.values[sample][:, None] - dense.values[sample][None, :]).abs().amin(dim=1)
        assert float(distance.max()) < 1e-9
    torch.testing.assert_close(
        block_log_determinant(blocks).values[:, 0], torch.linalg.slogdet(full).logabsdet, rtol=1e-12, atol=1e-12
    )


def test_a_dead_token_block_gives_log_determinant_minus_infinity() -> None:
    blocks = gaussian(1, 3, 2, 2)
    blocks[0, 1] = 0
    assert float(block_log_determinant(blocks).values) == -torch.inf
    with pytest.raises(ValueError, match="square"):
        block_eigenvalues(gaussian(1, 2, 2, 3))


def test_logarithm_carries_the_error_to_first_order_and_knows_zero() -> None:
    values = dense_spectrum(torch.diag(torch.tensor([4.0, 2.0, 0.0], dtype=torch.float64))[None]).singular_values
    logs = values.with_values(values.values, torch.full_like(values.values, 0.02)).logarithm(scale=0.5)
    assert logs.values[0].tolist() == pytest.approx([0.5 * log(4), 0.5 * log(2), -torch.inf])
    assert logs.errors[0].tolist() == pytest.approx([0.0025, 0.005, 0.0], rel=0.01)


def test_a_dead_unit_in_float32_gives_log_determinant_minus_infinity() -> None:
    matrix = gaussian(1, 8, 8).float()
    matrix[0, 3] = 0
    found = dense_spectrum(matrix).log_determinant
    assert found is not None and found.label is Label.EXACT
    assert float(found.values) == -torch.inf and float(found.errors) == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_a_log_determinant_lost_in_float32_is_bounded_from_above(seed: int) -> None:
    left, right = (torch.linalg.qr(gaussian(1, 6, 6, seed=s)).Q for s in (seed, seed + 50))
    scales = torch.tensor([1.0, 0.5, 0.2, 0.1, 1e-2, 1e-12])
    lost = left.float() * scales @ right.float()
    found = dense_spectrum(torch.cat([lost, left.float()])).log_determinant
    assert found is not None and found.label is Label.UPPER and "singular to rounding for some input" in found.method
    true = float(scales.double().log().sum())
    # No better than the rounding of float32 lets one know: ln(6 eps) where ln(1e-12) was.
    assert true < float(found.values[0]) < true + log(4 * 6 * torch.finfo(torch.float32).eps / 1e-12)
    assert 0.0 < float(found.values[1]) < 1e-4


def test_a_token_block_lost_in_float32_bounds_the_log_determinant_and_a_dead_one_settles_it() -> None:
    rotation = torch.linalg.qr(gaussian(4, 4)).Q.float()
    lost = rotation * torch.tensor([1.0, 1.0, 1.0, 1e-12]) @ rotation
    found = block_log_determinant(torch.stack([lost, rotation])[None])
    assert found.label is Label.UPPER and "for some block" in found.method
    assert log(1e-12) < float(found.values) < log(1e-5)
    dead = block_log_determinant(torch.stack([torch.zeros(4, 4), rotation])[None])
    assert dead.label is Label.EXACT and float(dead.values) == -torch.inf


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.integers(0, 10_000), st.floats(-7.0, 0.0))
def test_the_log_determinant_of_a_rounded_matrix_is_the_true_one_within_its_error(
    size: int, seed: int, smallest: float
) -> None:
    left, right = (torch.linalg.qr(gaussian(1, size, size, seed=s)).Q for s in (seed, seed + 1))
    scales = torch.logspace(0.0, smallest, size, dtype=torch.float64)
    found = dense_spectrum((left * scales @ right).float()).log_determinant
    assert found is not None
    value, error, true = float(found.values), float(found.errors), float(scales.log().sum())
    assert true <= value + error + 1e-12
    assert found.label is Label.UPPER or value - error - 1e-12 <= true
