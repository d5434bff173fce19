from __future__ import annotations

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynstab.core.estimate import CONVERGED, Label
from dynstab.estimators.product_qr import log_singular_values


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def graded(size: int, steps: int, decades: float) -> list[torch.Tensor]:
    scale = torch.logspace(0, -decades, size, dtype=torch.float64)[:, None]
    return [(scale * torch.linalg.qr(gaussian(size, size, seed=step)).Q)[None] for step in range(steps)]


def by_mpmath(factors: list[torch.Tensor]) -> torch.Tensor:
    with mpmath.workdps(400):
        product = mpmath.eye(factors[0].shape[2])
        for factor in factors:
            product = mpmath.matrix(factor[0].tolist()) * product
        values = [float(mpmath.log(value)) for value in mpmath.svd_r(product, compute_uv=False)]
    return torch.tensor(values, dtype=torch.float64).sort(descending=True).values


@pytest.mark.parametrize(
    ("size", "steps", "decades", "accuracy"), [(6, 40, 0.5, 1e-11), (6, 40, 2.0, 1e-9), (4, 30, 12.0, 1e-1)]
)
def test_agrees_with_four_hundred_digits(size: int, steps: int, decades: float, accuracy: float) -> None:
    factors = graded(size, steps, decades)
    true = by_mpmath(factors)
    found = log_singular_values(factors)
    assert found.outcome == CONVERGED and found.label is Label.EXACT
    assert bool(((found.values[0] - true).abs() <= found.errors[0]).all())
    assert float(found.errors.max()) < accuracy


def test_condition_of_1e51_with_known_factors() -> None:
    # U diag V^T split into a chain through hidden rotations: the product and its singular values are known.
    size, steps = 12, 60
    logs = torch.linspace(0, -51 * 2.302585092994046, size, dtype=torch.float64)
    rotations = torch.linalg.qr(gaussian(steps + 1, size, size)).Q
    step = torch.diag((logs / steps).exp())
    factors = [(rotations[i + 1] @ step @ rotations[i].mT)[None] for i in range(steps)]
    found = log_singular_values(factors)
    torch.testing.assert_close(found.values[0], logs, rtol=0, atol=1e-10)


def test_each_pass_comes_closer() -> None:
    factors = graded(6, 40, 2.0)
    true = by_mpmath(factors)
    errors = [float((log_singular_values(factors, passes=n).values[0] - true).abs().max()) for n in (1, 2, 3)]
    assert errors[0] > 10 * errors[1] > 100 * errors[2]


def test_close_singular_values_are_resolved_although_passes_cannot() -> None:
    factors = [torch.eye(30, dtype=torch.float64)[None] + 1e-3 * gaussian(1, 30, 30, seed=step) for step in range(5)]
    product = factors[0]
    for factor in factors[1:]:
        product = factor @ product
    found = log_singular_values(factors)
    torch.testing.assert_close(found.values, torch.linalg.svdvals(product).log(), rtol=0, atol=1e-13)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=2, max_size=7), st.integers(0, 10_000))
def test_rectangular_factors_give_the_singular_values_of_their_product(sizes: list[int], seed: int) -> None:
    factors = [gaussian(2, b, a, seed=seed + n) for n, (a, b) in enumerate(zip(sizes, sizes[1:], strict=False))]
    product = factors[0]
    for factor in factors[1:]:
        product = factor @ product
    narrowest = min(sizes)
    true = torch.linalg.svdvals(product)[:, :narrowest]
    found = log_singular_values(factors).values[:, :narrowest]
    torch.testing.assert_close(found.exp(), true, rtol=1e-8, atol=1e-12 * float(true.max()))


def test_scales_beyond_float64_are_carried_in_logarithms() -> None:
    factors = [1e-200 * torch.eye(3, dtype=torch.float64)[None]] * 10
    torch.testing.assert_close(
        log_singular_values(factors).values[0], torch.full((3,), -2000 * 2.302585092994046, dtype=torch.float64)
    )


def test_zero_factor_gives_minus_infinity_everywhere() -> None:
    factors = [gaussian(1, 3, 3), torch.zeros(1, 3, 3, dtype=torch.float64), gaussian(1, 3, 3)]
    found = log_singular_values(factors)
    assert bool(found.values.isneginf().all()) and found.outcome == CONVERGED


def test_too_few_passes_say_so() -> None:
    found = log_singular_values(graded(6, 10, 0.1), passes=2)
    assert "still moving" in found.outcome and found.label is Label.ESTIMATE
