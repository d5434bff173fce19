"""What every estimator does with an operator that is not finite, or has one entry, or one sample that is broken."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from dynstab.estimators import dense, finite_time, hutchinson, lanczos, non_normality
from dynstab.estimators.arnoldi import outer_eigenvalues
from dynstab.estimators.golub_kahan import largest_singular_values, smallest_singular_values
from dynstab.estimators.product_qr import log_singular_values
from dynstab.estimators.qr import qr_exponents
from dynstab.estimators.result import Result
from dynstab.estimators.token_blocks import block_eigenvalues
from dynstab.linear.operator import DenseOperator

Estimator = Callable[[torch.Tensor], Result]

ESTIMATORS: dict[str, Estimator] = {
    "largest": lambda a: largest_singular_values(DenseOperator(a), 2),
    "smallest": lambda a: smallest_singular_values(DenseOperator(a), 2),
    "symmetric largest": lambda a: lanczos.symmetric_extremes(DenseOperator(a)).largest,
    "logarithmic norm": lambda a: lanczos.logarithmic_norm(DenseOperator(a)),
    "radius": lambda a: outer_eigenvalues(DenseOperator(a)).spectral_radius(),
    "abscissa": lambda a: outer_eigenvalues(DenseOperator(a)).spectral_abscissa(),
    "frobenius": lambda a: hutchinson.frobenius_squared(DenseOperator(a)),
    "trace": lambda a: hutchinson.trace(DenseOperator(a)),
    "dense values": lambda a: dense.dense_spectrum(a).singular_values,
    "dense nullity": lambda a: dense.dense_spectrum(a).nullity,
    "dense eigenvalues": dense.eigenvalues,
    "dense radius": lambda a: dense.spectral_radius(dense.eigenvalues(a)),
    "dense symmetric": dense.symmetric_extremes,
    "henrici": lambda a: non_normality.henrici_departure(a, dense.eigenvalues(a)),
    "kreiss": lambda a: non_normality.kreiss_constant(a, dense.eigenvalues(a)),
    "growth": non_normality.transient_growth,
    "qr": lambda a: qr_exponents([DenseOperator(a)] * 3),
    "product qr": lambda a: log_singular_values([a.double()] * 3),
    "dense finite time": lambda a: finite_time.dense_log_singular_values([DenseOperator(a)] * 3),
    "leading finite time": lambda a: finite_time.leading_log_singular_values([DenseOperator(a)] * 3, 2),
    "blocks": lambda a: block_eigenvalues(a[:, None]),
}


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
def test_a_broken_sample_is_nan_and_counted_and_the_others_are_as_without_it(name: str, poison: float) -> None:
    matrices = 0.4 * torch.randn(3, 12, 12, generator=torch.Generator().manual_seed(0))
    clean = ESTIMATORS[name](matrices)
    matrices[1, 4, 7] = poison
    found = ESTIMATORS[name](matrices)
    assert found.values[1].isnan().all() and found.errors[1].isnan().all()
    assert "non-finite" in found.outcome and "1 of 3" in found.outcome
    others = [0, 2]
    torch.testing.assert_close(found.values[others], clean.values[others], rtol=0.05, atol=1e-4)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_single_number_is_an_operator_too(name: str) -> None:
    found = ESTIMATORS[name](torch.full((2, 1, 1), 0.5))
    assert found.values.shape == (2, 1) or name == "dense symmetric"
    assert not found.values.isnan().any()
    assert found.values.dtype in (torch.float64, torch.complex128) and found.errors.dtype is torch.float64


@pytest.mark.parametrize("name", ESTIMATORS)
def test_all_samples_broken_is_an_answer(name: str) -> None:
    assert ESTIMATORS[name](torch.full((2, 6, 6), torch.nan)).values.isnan().all()
