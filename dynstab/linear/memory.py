"""How many tangents fit into memory at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from dynstab.core.errors import MemoryBudgetError

_MEMINFO = Path("/proc/meminfo")
# Without a reading, what any machine that runs torch has.
_DEFAULT = 2 * 2**30
# The rest is for what runs beside us, and for what an estimate forgets.
_SHARE = 0.5
# Sweeps up to this many bytes are made without asking: the reading costs more than they do.
_ALWAYS = 32 * 2**20


def available_bytes(device: torch.device) -> int:
    """Memory that may be allocated on a device now."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if _MEMINFO.exists():
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return _DEFAULT


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on any device."""
    text = str(error)
    return isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and ("not enough memory" in text or "DefaultCPUAllocator" in text)
    )


def in_chunks(
    sweep: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]],
    moving: tuple[Tensor, ...],
    bytes_each: int,
    *,
    budget: int | None = None,
) -> tuple[Tensor, ...]:
    """`sweep` over k tangents, as many at a time as fit; half as many after each failed allocation.

    Args:
        bytes_each: what one tangent needs. budget: bytes that may be used; None reads what is free.

    Raises:
        MemoryBudgetError: not even one fits.
    """
    k, device = moving[0].shape[0], moving[0].device
    if k == 0:
        return tuple(tensor[:0] for tensor in sweep(tuple(t.new_zeros((1, *t.shape[1:])) for t in moving)))
    if budget is None and k * bytes_each <= _ALWAYS:
        budget = _ALWAYS
    free = int(available_bytes(device) * _SHARE) if budget is None else budget
    size = min(k, free // max(bytes_each, 1))
    if size < 1:
        raise _too_large(bytes_each, free, device)
    parts: list[tuple[Tensor, ...]] = []
    start = 0
    while start < k:
        try:
            parts.append(sweep(tuple(tensor[start : start + size] for tensor in moving)))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if size == 1:
                raise _too_large(bytes_each, free, device) from error
            size = (size + 1) // 2
            continue
        start += size
    if len(parts) == 1:
        return parts[0]
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def _too_large(bytes_each: int, free: int, device: torch.device) -> MemoryBudgetError:
    return MemoryBudgetError(
        f"one tangent needs about {bytes_each / 2**20:.1f} MiB on {device}, {free / 2**20:.1f} MiB may be used",
        remedy="take fewer inputs, shorter sequences, or a smaller dtype",
    )
