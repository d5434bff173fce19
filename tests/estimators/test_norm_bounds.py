from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynstab.core.estimate import Label
from dynstab.estimators.bounds import gram_iteration, randomized_norm_bound, residual_gain_bounds
from dynstab.estimators.dense import dense_spectrum, symmetric_extremes
from dynstab.estimators.golub_kahan import largest_singular_values
from dynstab.linear.operator import DenseOperator


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 10_000), st.sampled_from([1e-200, 1.0, 1e150]))
def test_gram_iteration_is_above_the_norm_and_within_its_rank_factor(
    rows: int, cols: int, seed: int, scale: float
) -> None:
    matrix = scale * gaussian(1, rows, cols, seed=seed)
    norm = float(torch.linalg.svdvals(matrix / scale)[0, 0]) * scale
    bound = gram_iteration(matrix, iterations=5)
    assert bound.label is Label.UPPER
    assert norm <= float(bound.values) <= norm * min(rows, cols) ** (1 / 64) * (1 + 1e-10)


def test_gram_iteration_of_the_zero_matrix_is_zero() -> None:
    assert float(gram_iteration(torch.zeros(1, 3, 3)).values) == 0.0


def test_randomized_bound_holds_and_fails_as_rarely_as_it_says() -> None:
    matrices = torch.zeros(2000, 5, 5, dtype=torch.float64)
    matrices[:, 0, 0] = 1.0  # rank one: the hardest case for the bound
    found = randomized_norm_bound(DenseOperator(matrices), probes=1)
    assert found.label is Label.PROBABILISTIC and "1e-1" in found.method
    failures = float((found.values < 1.0).double().mean())
    assert 0.0 < failures < 0.1 + 4 * (0.1 * 0.9 / 2000) ** 0.5


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(0, 10_000), st.floats(0.01, 1.0))
def test_residual_step_bounds_enclose_every_gain_and_beat_the_triangle_inequality(
    size: int, seed: int, step: float
) -> None:
    field = gaussian(2, size, size, seed=seed)
    ends = symmetric_extremes(field)
    spectrum = dense_spectrum(field).singular_values
    lower, upper = residual_gain_bounds(
        (ends.column(1), ends.column(0)), (spectrum.column(size - 1), spectrum.column(0)), step=step
    )
    gains = torch.linalg.svdvals(torch.eye(size, dtype=torch.float64) + step * field)
    assert lower.label is Label.LOWER and upper.label is Label.UPPER
    assert bool((lower.values <= gains[:, -1:]).all()) and bool((upper.values >= gains[:, :1]).all())
    norm = spectrum.values[:, :1]
    assert bool((upper.values <= 1 + step * norm + 1e-9).all())
    assert bool((lower.values >= (1 - step * norm).clamp(min=0) - 1e-9).all())


def test_a_ritz_value_among_the_parts_makes_the_upper_bound_an_estimate() -> None:
    field = gaussian(1, 30, 30)
    ends, exact = symmetric_extremes(field), dense_spectrum(field).singular_values
    ritz = largest_singular_values(DenseOperator(field), 1)
    _, upper = residual_gain_bounds((ends.column(1), ends.column(0)), (exact.column(29), ritz.column(0)))
    assert upper.label is Label.ESTIMATE
