from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynstab.core.estimate import Label
from dynstab.estimators.dense import eigenvalues
from dynstab.estimators.non_normality import (
    henrici_departure,
    kreiss_constant,
    transient_growth,
)


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_normal_contraction_has_no_departure_and_kreiss_constant_one() -> None:
    rotation = 0.9 * torch.linalg.qr(gaussian(2, 10, 10)).Q
    spectrum = eigenvalues(rotation)
    departure = henrici_departure(rotation, spectrum)
    assert bool((departure.values <= departure.errors).all())
    torch.testing.assert_close(kreiss_constant(rotation, spectrum).values, torch.ones(2, 1).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(transient_growth(rotation).values, torch.full((2, 1), 0.9).double())


def test_a_nilpotent_block_has_departure_one() -> None:
    shift = torch.diag(torch.ones(7, dtype=torch.float64), 1)[None]
    assert float(henrici_departure(shift, eigenvalues(shift)).values) == pytest.approx(1.0, abs=1e-3)


def test_kreiss_constant_of_a_two_by_two_jordan_block_equals_a_fine_search() -> None:
    c = 10.0
    matrix = torch.tensor([[0.9, c], [0.0, 0.9]], dtype=torch.float64)
    # By symmetry the supremum lies on the real axis; there the resolvent norm has a closed form.
    z = torch.linspace(1.0001, 3, 400_000, dtype=torch.float64)
    a, b = 1 / (z - 0.9), c / (z - 0.9) ** 2
    norm = ((2 * a**2 + b**2 + (b**2 * (b**2 + 4 * a**2)).sqrt()) / 2).sqrt()
    true = float(((z - 1) * norm).max())
    found = kreiss_constant(matrix[None], eigenvalues(matrix[None]))
    assert found.label is Label.LOWER
    assert true * (1 - 1e-4) < float(found.values) <= true * (1 + 1e-9)


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 8), st.integers(0, 10_000))
def test_kreiss_theorem_holds(size: int, seed: int) -> None:
    matrix = gaussian(1, size, size, seed=seed)
    matrix = 0.95 * matrix / torch.linalg.eigvals(matrix).abs().amax()
    kreiss = float(kreiss_constant(matrix, eigenvalues(matrix)).values)
    growth = float(transient_growth(matrix, powers=400).values)
    assert kreiss <= max(1.0, growth) * (1 + 1e-9)  # sup ||A^k|| includes k = 0
    assert growth <= 2.7183 * size * kreiss * 1.01


def test_an_expanding_matrix_has_an_infinite_kreiss_constant() -> None:
    matrix = torch.diag(torch.tensor([1.1, 0.5], dtype=torch.float64))[None]
    assert float(kreiss_constant(matrix, eigenvalues(matrix)).values) == torch.inf


def test_transient_growth_is_the_largest_norm_of_the_powers() -> None:
    matrix = torch.tensor([[0.9, 10.0], [0.0, 0.9]], dtype=torch.float64)
    norms = [torch.linalg.matrix_norm(torch.linalg.matrix_power(matrix, k), 2) for k in range(1, 65)]
    found = transient_growth(matrix[None])
    assert found.label is Label.LOWER
    assert float(found.values) == pytest.approx(float(max(norms)), rel=1e-12)
    assert float(transient_growth(1e200 * matrix[None]).values) == torch.inf


@pytest.mark.parametrize("radius", [0.8, 1.0, 1.3])
def test_transient_growth_skips_no_power_that_counts(radius: float) -> None:
    matrix = gaussian(3, 12, 12, seed=5)
    matrix = radius * matrix / torch.linalg.eigvals(matrix).abs().amax(dim=1)[:, None, None]
    norms = torch.stack([torch.linalg.matrix_norm(torch.linalg.matrix_power(matrix, k), 2) for k in range(1, 33)])
    found = transient_growth(matrix, powers=32).values[:, 0]
    torch.testing.assert_close(found, norms.amax(dim=0), rtol=1e-9, atol=0)
