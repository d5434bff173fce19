from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynstab.core.estimate import CONVERGED, Label
from dynstab.estimators import dense
from dynstab.estimators.lanczos import logarithmic_norm, symmetric_extremes
from dynstab.linear.operator import DenseOperator


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_euler_field_has_the_logarithmic_norm_of_the_literature() -> None:
    field = torch.tensor([[-1.0, 2.0], [0.0, -0.5]], dtype=torch.float64)
    step = torch.eye(2, dtype=torch.float64) + field
    found = logarithmic_norm(DenseOperator(step))
    assert float(found.values) == pytest.approx(0.280776, abs=1e-6)
    assert float(dense.logarithmic_norm(step[None]).values) == pytest.approx(0.280776, abs=1e-6)
    assert float(logarithmic_norm(DenseOperator(field), identity=0.0).values) == pytest.approx(0.280776, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(0, 10_000), st.sampled_from([0.0, 3.0, -3.0]))
def test_extremes_lie_inside_the_spectrum_and_within_their_residual(size: int, seed: int, shift: float) -> None:
    matrix = gaussian(1, size, size, seed=seed) + shift * torch.eye(size, dtype=torch.float64)
    found = symmetric_extremes(DenseOperator(matrix), budget=10_000)
    true = torch.linalg.eigvalsh((matrix + matrix.mT) / 2)[0]
    slack = 1e-12 * true.abs().max()
    assert found.largest.outcome == CONVERGED and found.largest.label is Label.CERTIFIED
    assert float(found.largest.values) <= float(true[-1]) + slack
    assert float(found.smallest.values) >= float(true[0]) - slack
    for end in (found.largest, found.smallest):
        assert float((true - end.values).abs().min()) <= float(end.errors) + slack


def test_ends_equal_the_dense_ones_at_a_tight_tolerance() -> None:
    matrices = gaussian(3, 150, 150)
    found = symmetric_extremes(DenseOperator(matrices), rtol=1e-7, budget=10_000)
    ends = torch.cat([found.largest.values, found.smallest.values], dim=1)
    torch.testing.assert_close(ends, dense.symmetric_extremes(matrices).values, rtol=1e-10, atol=0)


def test_antisymmetric_field_has_logarithmic_norm_zero() -> None:
    field = gaussian(1, 40, 40)
    step = torch.eye(40, dtype=torch.float64) + (field - field.mT)
    assert abs(float(logarithmic_norm(DenseOperator(step)).values)) < 1e-12


def test_rectangular_operator_has_no_symmetric_part() -> None:
    with pytest.raises(ValueError, match="square"):
        symmetric_extremes(DenseOperator(gaussian(1, 3, 4)))
