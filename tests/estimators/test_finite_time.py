from __future__ import annotations

import pytest
import torch

from dynstab.core.estimate import CONVERGED, Label
from dynstab.estimators.finite_time import (
    ScaledProduct,
    dense_log_singular_values,
    exponents,
    leading_log_singular_values,
)
from dynstab.estimators.product_qr import log_singular_values
from dynstab.estimators.qr import qr_exponents
from dynstab.linear.operator import DenseOperator, ProductOperator


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def chain(matrices: torch.Tensor, dtype: torch.dtype = torch.float64) -> list[DenseOperator]:
    return [DenseOperator(matrix.to(dtype)) for matrix in matrices]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_leading_values_of_a_shallow_chain_equal_the_dense_ones(dtype: torch.dtype) -> None:
    matrices = gaussian(8, 2, 48, 48) / 48**0.5
    dense = dense_log_singular_values(chain(matrices))
    found = leading_log_singular_values(chain(matrices, dtype), 5)
    assert found.label is Label.CERTIFIED and found.outcome == CONVERGED
    assert bool(((found.values - dense.values[:, :5]).abs() <= found.errors).all())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_leading_values_below_the_rounding_of_the_first_are_found_by_pairs(dtype: torch.dtype) -> None:
    step = torch.diag(torch.logspace(0, -1.5, 16, dtype=torch.float64))
    matrices = torch.linalg.qr(gaussian(60, 1, 16, 16)).Q @ step
    dense = dense_log_singular_values(chain(matrices))
    assert float(dense.values[0, 0] - dense.values[0, 7]) > 36  # out of float64's range
    found = leading_log_singular_values(chain(matrices, dtype), 8)
    assert found.label is Label.LOWER and found.outcome == CONVERGED
    torch.testing.assert_close(found.values, dense.values[:, :8], rtol=0, atol=1e-3)


def test_a_float32_chain_whose_product_underflows_keeps_its_exponents() -> None:
    matrices = gaussian(100, 1, 32, 32) / 32**0.5
    operators = chain(1e-2 * matrices, torch.float32)
    tangent = torch.ones(1, 32, 1)
    assert not ProductOperator(tuple(operators)).matmat(tangent).any()  # float32 holds nothing of it
    found = exponents(leading_log_singular_values(operators, 2), 100)
    reference = exponents(dense_log_singular_values(chain(1e-2 * matrices)), 100)
    torch.testing.assert_close(found.values, reference.values[:, :2], rtol=0, atol=1e-5)


def test_scaled_product_is_the_product_up_to_its_scale_and_adjoint() -> None:
    matrices = gaussian(5, 2, 7, 7)
    scaled, plain = ScaledProduct(chain(matrices)), ProductOperator(tuple(chain(matrices)))
    tangents, cotangents = gaussian(2, 7, 3, seed=1), gaussian(2, 7, 3, seed=2)
    image = scaled.matmat(tangents)
    torch.testing.assert_close(image, plain.matmat(tangents) * scaled.log_scale.exp()[:, None, None])
    torch.testing.assert_close((image * cotangents).sum(), (tangents * scaled.rmatmat(cotangents)).sum())


def test_orthogonal_chain_has_zero_finite_time_exponents() -> None:
    operators = chain(torch.linalg.qr(gaussian(60, 1, 20, 20)).Q)
    assert float(leading_log_singular_values(operators, 4).values.abs().max()) < 1e-12
    assert float(dense_log_singular_values(operators).values.abs().max()) < 1e-12


def test_a_random_forward_frame_measures_less_than_the_leading_exponent() -> None:
    operators = chain(gaussian(6, 1, 60, 60) / 60**0.5)
    leading = exponents(leading_log_singular_values(operators, 1), 6)
    assert float(qr_exponents(operators, 1).values) < float(leading.values) - 0.05


def test_null_directions_of_single_precision_are_minus_infinity_in_double_precision_too() -> None:
    projector = torch.eye(10) - torch.full((10, 10), 0.1)
    rotation = torch.linalg.qr(gaussian(10, 10)).Q.float()
    found = dense_log_singular_values([DenseOperator(projector), DenseOperator(rotation)])
    direct = log_singular_values([projector[None], rotation[None]], floor=16 * torch.finfo(torch.float32).eps)
    torch.testing.assert_close(direct.values, found.values, rtol=0, atol=1e-6)
    assert int(found.values.isneginf().sum()) == 1
    torch.testing.assert_close(found.values[0, :9], torch.zeros(9, dtype=torch.float64), atol=1e-5, rtol=0)


def test_zero_chain_has_no_finite_exponent() -> None:
    operators = chain(torch.zeros(3, 1, 5, 5))
    assert bool(leading_log_singular_values(operators, 2).values.isneginf().all())
    assert bool(dense_log_singular_values(operators).values.isneginf().all())
    with pytest.raises(ValueError, match="at least one"):
        leading_log_singular_values([])
