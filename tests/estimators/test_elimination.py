"""Elimination between QR factorisations leaves the exponents and the product of the factors as they are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dynstab.estimators.elimination import eliminate
from dynstab.estimators.frame_walk import FrameWalk
from dynstab.estimators.orthogonal import random_frame
from dynstab.linear.operator import DenseOperator

SIZE, STEPS = 80, 60


def chain(samples: int = 1) -> Tensor:
    """Gaussian matrices whose directions spread by e^4 or so at every step."""
    gaussian = torch.randn(STEPS, samples, SIZE, SIZE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return gaussian / SIZE**0.5


def walked(matrices: Tensor, *, orthogonal: int, longest: int = 3) -> FrameWalk:
    frame = random_frame(matrices.shape[1], SIZE, SIZE, seed=0, dtype=torch.float64, device=torch.device("cpu"))
    walk = FrameWalk(frame, longest=longest, orthogonal=orthogonal)
    for matrix in matrices:
        walk.push(DenseOperator(matrix))
    return walk


@pytest.mark.parametrize("samples", [1, 3])
def test_an_eliminated_frame_times_its_triangle_is_what_was_eliminated(samples: int) -> None:
    columns = torch.randn(samples, 100, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    frame, upper = eliminate(columns)
    torch.testing.assert_close(frame @ upper, columns, rtol=0, atol=1e-12)
    assert torch.equal(upper, upper.triu()) and float(frame.abs().max()) == 1.0


@pytest.mark.parametrize("samples", [1, 3])
def test_elimination_gives_the_exponents_of_qr(samples: int) -> None:
    by_qr, eliminated = walked(chain(samples), orthogonal=1), walked(chain(samples), orthogonal=20)
    expected, found = by_qr.finish(), eliminated.finish()
    assert by_qr.eliminations == 0 and eliminated.eliminations >= 15
    assert f"{eliminated.eliminations} of them by elimination" in found.method
    torch.testing.assert_close(found.values, expected.values, rtol=0, atol=1e-8)  # floor^(1 - reach) is 1e-8
    assert found.lengths == (20, 20, 20) or sum(found.lengths) == STEPS


def test_the_factors_of_both_have_one_product() -> None:
    # Of few steps: the product of many is known to its largest entries alone.
    by_qr, eliminated = walked(chain()[:6], orthogonal=1), walked(chain()[:6], orthogonal=6)
    products = []
    for walk in (by_qr, eliminated):
        walk.finish()
        product = torch.eye(SIZE, dtype=torch.float64)
        for factor in walk.factors:
            product = factor[0] @ product
        products.append(torch.linalg.svdvals(product).log()[:40])
    assert len(eliminated.factors) > 2
    torch.testing.assert_close(*products, rtol=0, atol=1e-9)


def test_a_direction_lost_between_two_qr_is_lost_from_there_on() -> None:
    matrices = chain()
    matrices[10, :, :, 0] = matrices[10, :, :, 1]  # rank 79
    expected, found = walked(matrices, orthogonal=1).finish(), walked(matrices, orthogonal=20).finish()
    assert int(found.values.isneginf().sum()) == 1 == int(expected.values.isneginf().sum())
    torch.testing.assert_close(found.values, expected.values, rtol=0, atol=1e-9)


def test_a_spread_that_jumps_between_two_qr_is_walked_again() -> None:
    matrices = chain()
    fade = torch.logspace(0, -5, SIZE, dtype=torch.float64)
    matrices[30:40] = matrices[30:40] * fade
    expected, found = walked(matrices, orthogonal=1, longest=1).finish(), walked(matrices, orthogonal=20).finish()
    torch.testing.assert_close(found.values, expected.values, rtol=1e-6, atol=1e-6)


def test_a_step_that_is_not_finite_makes_every_exponent_unknown() -> None:
    matrices = chain()
    matrices[10, :, 3, 3] = torch.nan
    assert bool(walked(matrices, orthogonal=20).finish().values.isnan().all())
