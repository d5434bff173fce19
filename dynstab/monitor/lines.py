"""A part of a large tensor that stands for all of it: lines of memory at even distances."""

from __future__ import annotations

from torch import Tensor


def lines_of(tensor: Tensor, *, length: int, most: int) -> Tensor:
    """A view of about `most` entries, (lines, length), each line of neighbours, which a processor fetches together.

    The distance of the lines is odd, so that they walk through the columns of a matrix and heads and channels take
    turns. A tensor of no more than `most` entries is returned as it is; of one whose memory has gaps, every so
    many indices of its longest dimension are.
    """
    entries = tensor.numel()
    if entries <= most:
        return tensor
    dense = tensor if tensor.is_contiguous() else _in_memory_order(tensor)
    if not dense.is_contiguous():
        longest = max(range(tensor.ndim), key=lambda dim: tensor.shape[dim])
        apart = -(-entries // most)
        return tensor[(*(slice(None) for _ in range(longest)), slice(None, None, apart))]
    lines = entries // length
    apart = (entries // most) | 1
    return dense.as_strided((-(-lines // apart), length), (length * apart, 1))


def _in_memory_order(tensor: Tensor) -> Tensor:
    """Its dimensions permuted: channels-last images and transposed matrices are contiguous then."""
    return tensor.permute(sorted(range(tensor.ndim), key=lambda dim: -tensor.stride(dim)))
