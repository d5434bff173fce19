from __future__ import annotations

import pytest
import torch

from dynstab.core.estimate import Label
from dynstab.estimators.hutchinson import frobenius_from_images, frobenius_squared, trace
from dynstab.linear.operator import DenseOperator


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("side", ["push", "pull"])
def test_frobenius_norm_is_unbiased_and_its_error_has_the_right_size(side: str) -> None:
    matrix = gaussian(1, 12, 20)
    true = float(matrix.square().sum())
    runs = [frobenius_squared(DenseOperator(matrix), probes=16, side=side, seed=seed) for seed in range(400)]  # pyright: ignore
    values = torch.cat([run.values for run in runs])[:, 0]
    errors = torch.cat([run.errors for run in runs])[:, 0]
    assert abs(float(values.mean()) - true) < 4 * float(values.std()) / 20
    assert float(errors.square().mean().sqrt()) == pytest.approx(float(values.std()), rel=0.1)


def test_variance_of_gaussian_probes_is_the_textbook_one() -> None:
    matrix = gaussian(1, 10, 10)
    gram = matrix[0].mT @ matrix[0]
    relative = float(2 * (gram @ gram).trace() / gram.trace() ** 2)
    values = frobenius_from_images(matrix @ gaussian(1, 10, 200_000, seed=1))
    assert float(values.errors / values.values) == pytest.approx((relative / 200_000) ** 0.5, rel=0.02)


def test_orthonormal_probes_over_the_whole_space_are_exact() -> None:
    matrix = gaussian(2, 9, 9)
    found = frobenius_from_images(matrix * 3.0)  # columns of 3 I: isotropic, E z z^T = I
    torch.testing.assert_close(found.values[:, 0], matrix.square().sum(dim=(1, 2)))


def test_residual_chain_grows_by_one_plus_a_squared_a_step() -> None:
    a, steps, width = 0.3, 10, 60
    weights = gaussian(400, steps, width, width) / width**0.5
    tangent = torch.zeros(400, width, 1, dtype=torch.float64)
    tangent[:, 0] = 1.0
    for step in range(steps):
        tangent = tangent + a * weights[:, step] @ tangent
    found = frobenius_from_images(tangent.squeeze(2).T[None])
    assert abs(float(found.values) - (1 + a**2) ** steps) < 4 * float(found.errors)


def test_a_single_probe_claims_no_more_than_the_worst_case() -> None:
    found = frobenius_from_images(gaussian(1, 5, 1))
    assert float(found.errors) == pytest.approx(2**0.5 * float(found.values))
    assert found.label is Label.ESTIMATE and found.products == 1


def test_trace_lies_within_its_error() -> None:
    matrix = gaussian(1, 200, 200) / 200**0.5 + torch.eye(200, dtype=torch.float64)
    found = trace(DenseOperator(matrix), probes=64)
    assert abs(float(found.values) - float(matrix[0].trace())) < 4 * float(found.errors)
    with pytest.raises(ValueError, match="square"):
        trace(DenseOperator(gaussian(1, 3, 4)))
