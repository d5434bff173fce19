from __future__ import annotations

import pytest
import torch

from dynstab.core.errors import ConfigError, InputError
from dynstab.core.estimate import Label
from dynstab.estimators.singular_values import singular_values
from dynstab.linear.jacobian import jacobian
from dynstab.linear.operator import DenseOperator


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_small_matrix_is_exact_from_either_end() -> None:
    matrix = gaussian(9, 6)
    true = torch.linalg.svdvals(matrix).tolist()
    assert [e.value for e in singular_values(matrix, 3)] == pytest.approx(true[:3])
    assert [e.value for e in singular_values(matrix, 2, "smallest")] == pytest.approx(true[::-1][:2])
    every = singular_values(matrix, which="all")
    assert [e.value for e in every] == pytest.approx(true)
    assert {e.label for e in every} == {Label.EXACT}


def test_a_large_matrix_is_certified_above_and_bounded_below() -> None:
    matrix = gaussian(600, 520) / 600**0.5
    true = torch.linalg.svdvals(matrix)
    for estimate, value in zip(singular_values(matrix, 4), true.tolist(), strict=False):
        assert estimate.label is Label.CERTIFIED and estimate.error is not None
        assert abs((estimate.value or 0.0) - value) <= estimate.error
    (smallest,) = singular_values(matrix, 1, "smallest")
    assert smallest.label is Label.UPPER and (smallest.value or 0.0) >= float(true[-1])


def test_the_jacobian_of_a_function_serves() -> None:
    weight = gaussian(5, 5)
    found = singular_values(jacobian(lambda x: weight @ x, gaussian(5)), 2)
    assert [e.value for e in found] == pytest.approx(torch.linalg.svdvals(weight)[:2].tolist())
    assert found[0].products == 5


def test_many_samples_give_the_mean_and_the_spread() -> None:
    matrices = gaussian(4, 5, 5)
    largest = torch.linalg.svdvals(matrices)[:, 0]
    (found,) = singular_values(DenseOperator(matrices), 1)
    assert found.value == pytest.approx(float(largest.mean()))
    assert found.spread == pytest.approx(float(largest.std())) and found.samples == 4


@pytest.mark.parametrize("bad", [[[1.0]], torch.ones(3), torch.ones(2, 2, dtype=torch.int64)])
def test_what_is_no_matrix_is_refused(bad: object) -> None:
    with pytest.raises(InputError, match="singular_values got"):
        singular_values(bad)  # pyright: ignore[reportArgumentType]


def test_options_that_cannot_be_served_are_refused() -> None:
    with pytest.raises(ConfigError, match="k=0"):
        singular_values(torch.eye(2), 0)
    with pytest.raises(ConfigError, match="'largest'"):
        singular_values(torch.eye(2), 1, "middle")  # pyright: ignore[reportArgumentType]
