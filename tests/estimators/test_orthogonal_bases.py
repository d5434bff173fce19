from __future__ import annotations

import pytest
import torch

from dynstab.estimators.orthogonal import _cholesky_qr, complete, extend, orthonormalise, random_frame


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_qr_reproduces_the_block_and_gives_its_factor_in_double_precision(dtype: torch.dtype) -> None:
    block = gaussian(2, 20, 5).to(dtype)
    q, r = orthonormalise(block)
    assert q.dtype is dtype and r.dtype is torch.float64
    torch.testing.assert_close(q.double() @ r, block.double(), rtol=0, atol=40 * torch.finfo(dtype).eps)


def test_cholesky_of_the_double_precision_gram_is_as_orthogonal_as_householder() -> None:
    block = (gaussian(2, 200, 8) * torch.logspace(0, -6, 8)).double()
    q, r = _cholesky_qr(block)
    torch.testing.assert_close(q.mT @ q, torch.eye(8).double().expand(2, -1, -1), rtol=0, atol=1e-13)
    torch.testing.assert_close(q @ r, block, rtol=0, atol=1e-13)


def test_cholesky_falls_back_on_dependent_columns() -> None:
    block = gaussian(1, 30, 1).expand(-1, -1, 4)
    q, _ = _cholesky_qr(block)
    torch.testing.assert_close(q.mT @ q, torch.eye(4).double()[None], rtol=0, atol=1e-12)


def test_extension_is_orthogonal_and_leaves_zero_columns_for_what_is_dependent() -> None:
    basis = random_frame(2, 30, 6, seed=0, dtype=torch.float64, device=torch.device("cpu"))
    block = torch.cat([gaussian(2, 30, 2), basis[:, :, :1] * 3, torch.zeros(2, 30, 1)], dim=2)
    fresh, sizes = extend(basis, block)
    assert (fresh != 0).any(dim=1).sum(dim=1).tolist() == [2, 2]
    assert float((basis.mT @ fresh).abs().max()) < 1e-14
    assert bool((sizes[:, 2:] < 1e-13).all())


def test_completion_fills_the_space_and_no_more() -> None:
    basis = random_frame(1, 10, 7, seed=0, dtype=torch.float64, device=torch.device("cpu"))
    filled = complete(basis, torch.zeros(1, 10, 5, dtype=torch.float64), seed=1)
    assert int((filled != 0).any(dim=1).sum()) == 3
    whole = torch.cat([basis, filled[:, :, :3]], dim=2)
    torch.testing.assert_close(whole.mT @ whole, torch.eye(10).double()[None], rtol=0, atol=1e-13)
