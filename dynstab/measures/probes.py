"""Isotropic probes and products with them, a few columns at a time where states are large."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dynstab.linear.operator import LinearOperator


def gaussian_blocks(operator: LinearOperator, count: int, *, seed: int, chunk_bytes: int) -> Iterator[Tensor]:
    """`count` standard normal columns at the output of an operator, as blocks (samples, rows, j).

    The draws do not depend on the size of the blocks, so that memory does not change a result.
    """
    generator = torch.Generator().manual_seed(seed)
    width = _width(operator, operator.rows, chunk_bytes)
    draw_dtype = torch.float64 if operator.dtype == torch.float64 else torch.float32
    for start in range(0, count, width):
        columns = [
            torch.randn(operator.samples, operator.rows, generator=generator, dtype=draw_dtype)
            for _ in range(min(width, count - start))
        ]
        yield torch.stack(columns, dim=2).to(device=operator.device, dtype=operator.dtype)


def pull(operator: LinearOperator, cotangents: Tensor, *, chunk_bytes: int) -> Tensor:
    """J^T C, (samples, rows, k) -> (samples, cols, k), in blocks that respect `chunk_bytes`."""
    width = _width(operator, max(operator.shape), chunk_bytes)
    parts = [operator.rmatmat(part) for part in cotangents.split(width, dim=2)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def squared_norms(columns: Tensor) -> Tensor:
    """(samples, size, k) -> (samples, k), float64, in which the squares of float32 entries cannot overflow."""
    return torch.linalg.vector_norm(columns, dim=1, dtype=torch.float64).square()


def _width(operator: LinearOperator, size: int, chunk_bytes: int) -> int:
    column = operator.samples * size * operator.dtype.itemsize
    return max(1, chunk_bytes // max(1, column))
