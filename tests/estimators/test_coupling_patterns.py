"""Couplings read off a Jacobian, confirmed over a finite move and run back, against closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dynstab.estimators.structure import Probes, identity_probes, is_kept
from dynstab.estimators.structure_couplings import (
    Coupling,
    finite_move,
    is_linear,
    pattern_defect,
    read_coupling,
    run_back,
)
from dynstab.linear.operator import DenseOperator

F64 = torch.float64
SIZE, KEPT = 9, 4


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def shuffled(samples: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Jacobians [[D_1, 0], [C, D_2]] with rows and columns in one random order each, their scales and that order."""
    scales = 0.5 + randn(samples, SIZE, seed=0).abs()
    matrices = torch.diag_embed(scales)
    matrices[:, KEPT:, :KEPT] = randn(samples, SIZE - KEPT, KEPT, seed=1)
    rows, cols = (torch.randperm(SIZE, generator=torch.Generator().manual_seed(seed)) for seed in (2, 3))
    return matrices[:, rows][:, :, cols], scales[:, rows], rows


def read(matrices: Tensor) -> Coupling | None:
    return read_coupling(DenseOperator(matrices), randn(len(matrices), matrices.shape[1], 1, seed=4).to(matrices))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_a_coupling_in_any_order_is_read_off_six_products(dtype: torch.dtype) -> None:
    matrices, scales, rows = shuffled()
    found = read(matrices.to(dtype))
    assert found is not None
    assert torch.equal(found.pattern.passed, rows < KEPT)
    assert torch.allclose(found.scales.double(), scales, rtol=1e-6)
    result = found.log_determinant()
    # Rounding of the entries to float32 is no error of the sum.
    exact = torch.linalg.slogdet(matrices.to(dtype).double()).logabsdet
    assert bool(((result.values[:, 0] - exact).abs() <= result.errors[:, 0]).all())
    assert float(result.errors.max()) < 200 * torch.finfo(dtype).eps


def test_what_is_no_coupling_is_not_read_as_one() -> None:
    matrices, _, rows = shuffled()
    passed, changed = (rows < KEPT).nonzero()[:, 0], (rows >= KEPT).nonzero()[:, 0]
    leaking, mixing, other = matrices.clone(), matrices.clone(), matrices.clone()
    leaking[1, passed[0]] += 1e-3
    mixing[2, changed[0]] += 1e-3
    sources = matrices[0, passed[:2]].abs().argmax(dim=1)
    other[0][:, sources] = other[0][:, sources.flip(0)]  # passed on in another order at one of the inputs
    singular = torch.where(matrices == matrices[:, passed[:1]].sum(dim=2)[:, :, None], 0.0, matrices)
    for wrong in (leaking, mixing, other, singular, randn(3, SIZE, SIZE, seed=5), matrices * torch.nan):
        assert read(wrong) is None


def test_elementwise_maps_couple_nothing() -> None:
    found = read(torch.diag_embed(randn(3, SIZE, seed=6))[:, torch.randperm(SIZE)])
    assert found is not None
    assert found.pattern.elementwise


def test_the_defect_of_a_pattern_is_the_share_of_the_entries_beside_it() -> None:
    matrices, _, rows = shuffled(samples=1)
    found = read(matrices)
    assert found is not None
    passed = rows < KEPT
    wrong = matrices + 0.1 * randn(1, SIZE, SIZE, seed=7)
    zeros = torch.ones(SIZE, SIZE, dtype=torch.bool)
    zeros[torch.arange(SIZE), found.pattern.source] = False
    zeros[~passed] &= ~found.pattern.kept
    expected = float(wrong[0][zeros].norm() / wrong[0].norm())
    operator = DenseOperator(wrong)
    exact = pattern_defect(operator, found.pattern, identity_probes(operator))
    assert exact.values.item() == pytest.approx(expected)
    drawn = pattern_defect(operator, found.pattern, Probes(columns=randn(1, SIZE, 256, seed=8), exact=False))
    assert drawn.values.item() == pytest.approx(expected, rel=0.1)
    right = DenseOperator(matrices)
    assert is_kept(pattern_defect(right, found.pattern, identity_probes(right)))


def step(kind: str, columns: Tensor) -> Tensor:
    """A coupling of the first two entries with the last two, swapped and with a constant factor."""
    a, b = columns[:, :2], columns[:, 2:]
    scale = 0.8 if kind == "additive" else torch.exp(torch.tanh(a.flip(1)))
    bent = b + 0.3 * torch.sin(b) if kind == "bent" else b
    shift = a.sum(dim=1, keepdim=True) if kind == "linear" else torch.sin(3 * a)
    return torch.cat([(0.8 if kind == "linear" else scale) * bent + shift, 2 * a - 1], dim=1)


def jacobian(kind: str, points: Tensor) -> Tensor:
    return torch.stack(
        [torch.autograd.functional.jacobian(lambda x: step(kind, x[None, :, None])[0, :, 0], p[:, 0]) for p in points]
    )


@pytest.mark.parametrize(
    ("kind", "kept", "affine", "linear"),
    [
        ("affine", True, True, False),
        ("additive", True, False, False),
        ("linear", True, False, True),
        ("bent", False, True, False),
    ],
)
def test_a_finite_move_tells_the_kinds_apart(kind: str, kept: bool, affine: bool, linear: bool) -> None:
    point, offset = randn(3, 4, 1, seed=9), randn(3, 4, 1, seed=10)
    matrices = jacobian(kind, point)
    found = read(matrices)
    assert found is not None
    moved = finite_move(found, lambda columns: step(kind, columns), point, offset)
    assert is_kept(moved.defect) == kept
    assert moved.affine == affine
    assert is_linear(DenseOperator(matrices), lambda columns: step(kind, columns), point, offset) == linear


@pytest.mark.parametrize("kind", ["affine", "additive"])
def test_a_coupling_is_run_back_by_its_own_scale_and_shift(kind: str) -> None:
    point = randn(3, 4, 1, seed=11)
    found = read(jacobian(kind, point))
    assert found is not None
    image = step(kind, point)
    assert torch.allclose(run_back(found, lambda columns: step(kind, columns), image), point, rtol=0, atol=1e-14)


def test_running_back_loses_no_more_than_rounding_of_the_image() -> None:
    def far(columns: Tensor) -> Tensor:
        shift = torch.cat([1e4 * torch.cos(columns[:, :2]), torch.zeros_like(columns[:, :2])], dim=1)
        return step("affine", columns) + shift

    point = randn(3, 4, 1, seed=12)
    found = read(jacobian("affine", point))
    assert found is not None
    point[:, 2:] *= 1e6
    assert torch.allclose(run_back(found, far, far(point)), point, rtol=0, atol=3e-9)
