"""The norms of many tensors in one call."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_HALF = (torch.float16, torch.bfloat16)


def norms_of(tensors: Sequence[Tensor]) -> Tensor:
    """The 2-norm of every tensor, (tensors,), float64, on the device of the first.

    Half precision is summed in float32, whose range its squares would leave.
    """
    wide = torch.float32 if any(tensor.dtype in _HALF for tensor in tensors) else None
    norms = torch._foreach_norm(list(tensors), 2, dtype=wide)  # pyright: ignore[reportPrivateImportUsage]
    home, kind = norms[0].device, norms[0].dtype
    if any(norm.dtype != kind or norm.device != home for norm in norms):
        norms = [norm.to(device=home, dtype=torch.float64, non_blocking=norm.is_cpu) for norm in norms]
    return torch.stack(norms).double()
