"""A part of a tensor that stands for all of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dynstab.monitor.lines import lines_of

LINE, MOST = 8, 256


def taken(tensor: Tensor) -> Tensor:
    return lines_of(tensor, length=LINE, most=MOST)


def test_a_small_tensor_is_taken_whole() -> None:
    small = torch.randn(16, 16)
    assert taken(small) is small


@pytest.mark.parametrize("shape", [(4096,), (64, 64), (3, 5, 7, 11), (1, 5000), (5000, 1)])
def test_lines_are_views_at_even_distances_over_the_whole_tensor(shape: tuple[int, ...]) -> None:
    tensor = torch.arange(torch.Size(shape).numel()).reshape(shape)
    lines = taken(tensor)
    assert lines.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()
    assert lines.shape[1] == LINE
    assert MOST / 3 <= lines.numel() <= 1.5 * MOST
    starts = lines[:, 0]
    assert torch.equal(lines - starts[:, None], torch.arange(LINE).expand_as(lines))
    (apart,) = set((starts[1:] - starts[:-1]).tolist())
    assert apart // LINE % 2 == 1
    assert tensor.numel() - int(lines[-1, -1]) <= apart + LINE


def test_all_columns_of_a_matrix_are_met() -> None:
    matrix = torch.arange(64).expand(512, 64).contiguous()
    assert set(taken(matrix).flatten().tolist()) == set(range(64))


@pytest.mark.parametrize("way", ["channels last", "transposed", "offset"])
def test_order_in_memory_is_what_counts(way: str) -> None:
    torch.manual_seed(0)
    tensor = {
        "channels last": torch.randn(4, 16, 8, 8).to(memory_format=torch.channels_last),
        "transposed": torch.randn(64, 96).T,
        "offset": torch.randn(70, 64)[6:],
    }[way]
    lines = taken(tensor)
    assert lines.shape[1] == LINE and lines.stride(1) == 1
    assert set(lines.flatten().tolist()) <= set(tensor.flatten().tolist())


def test_memory_with_gaps_is_read_at_every_so_many_indices() -> None:
    tensor = torch.randn(4000, 6)[:, ::2]
    few = taken(tensor)
    assert few.shape == (-(-4000 // (-(-12000 // MOST))), 3)
    assert set(few.flatten().tolist()) <= set(tensor.flatten().tolist())
