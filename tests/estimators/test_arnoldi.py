from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import eigs

from dynstab.core.estimate import CONVERGED
from dynstab.estimators.arnoldi import outer_eigenvalues
from dynstab.linear.operator import DenseOperator


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_outer_eigenvalues_agree_with_arpack() -> None:
    matrices = gaussian(2, 150, 150) / 150**0.5
    found = outer_eigenvalues(DenseOperator(matrices), 2, rtol=1e-8, budget=5000)
    assert found.by_magnitude.outcome == CONVERGED
    for sample, matrix in enumerate(matrices.numpy()):
        start = np.ones(150)
        magnitude = np.abs(np.asarray(eigs(matrix, k=6, which="LM", v0=start, return_eigenvectors=False))).max()
        real = np.real(np.asarray(eigs(matrix, k=6, which="LR", v0=start, return_eigenvectors=False))).max()
        assert float(found.spectral_radius().values[sample]) == pytest.approx(magnitude, rel=1e-7)
        assert float(found.spectral_abscissa(identity=0.0).values[sample]) == pytest.approx(real, rel=1e-7)


def test_restarts_with_a_small_basis_reach_the_same_eigenvalues() -> None:
    matrix = torch.diag(torch.linspace(0, 1, 300, dtype=torch.float64)) + 1e-3 * gaussian(1, 300, 300)
    true = torch.linalg.eigvals(matrix).abs().amax(dim=1)
    found = outer_eigenvalues(DenseOperator(matrix), rtol=1e-6, basis=24, budget=5000)
    assert found.by_magnitude.outcome == CONVERGED and found.by_magnitude.products > 24
    torch.testing.assert_close(found.spectral_radius().values[:, 0], true, rtol=1e-6, atol=0)


def test_a_rotation_has_radius_one_and_its_complex_pair() -> None:
    angle = torch.tensor(0.3, dtype=torch.float64)
    rotation = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    found = outer_eigenvalues(DenseOperator(rotation), 2)
    torch.testing.assert_close(found.by_magnitude.values.abs(), torch.ones(1, 2, dtype=torch.float64))
    torch.testing.assert_close(found.by_magnitude.values.angle().abs(), angle.expand(1, 2))


def test_error_estimate_covers_a_non_normal_matrix() -> None:
    matrix = torch.triu(gaussian(1, 60, 60), 1) / 8 + torch.diag(torch.linspace(0.1, 1, 60, dtype=torch.float64))
    found = outer_eigenvalues(DenseOperator(matrix), rtol=1e-3, budget=2000)
    radius = found.spectral_radius()
    assert abs(float(radius.values) - 1.0) <= float(radius.errors)


def test_a_negative_spectrum_is_not_outdone_by_the_zeros_of_a_filled_space() -> None:
    matrix = torch.diag(torch.linspace(-3, -1, 11, dtype=torch.float64))
    found = outer_eigenvalues(DenseOperator(matrix), budget=1000, block=4)
    assert float(found.spectral_abscissa(identity=0.0).values) == pytest.approx(-1, abs=1e-9)
    assert float(found.spectral_radius().values) == pytest.approx(3, abs=1e-9)


def test_zero_matrix_has_radius_zero() -> None:
    found = outer_eigenvalues(DenseOperator(torch.zeros(2, 20, 20)))
    assert not found.spectral_radius().values.any()


def test_a_budget_that_is_too_small_is_named() -> None:
    matrix = gaussian(1, 400, 400)
    assert "budget" in outer_eigenvalues(DenseOperator(matrix), rtol=1e-8, budget=40).by_magnitude.outcome


def test_rectangular_operator_has_no_eigenvalues() -> None:
    with pytest.raises(ValueError, match="square"):
        outer_eigenvalues(DenseOperator(gaussian(1, 3, 4)))
