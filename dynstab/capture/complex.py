"""Complex tensors as real ones: a state, an input or an output has real columns, real and imaginary parts in pairs.

A network of complex numbers is a real map twice as wide. Its derivative in that sense is what
autograd computes: the gradient of a real loss by z is dL/dRe z + i dL/dIm z.
"""

from __future__ import annotations

import torch
from torch import Tensor


def as_real(tensor: Tensor) -> Tensor:
    """(..., n) complex -> (..., 2n) real; a single dimension, which may count inputs, gets one of size 2 beside it."""
    if not tensor.is_complex():
        return tensor
    pairs = torch.view_as_real(tensor.resolve_conj())
    return pairs.flatten(-2) if tensor.ndim > 1 else pairs


def as_complex(tensor: Tensor, dimensions: int) -> Tensor:
    """The inverse of `as_real` for a complex tensor of so many dimensions."""
    pairs = tensor.unflatten(-1, (-1, 2)) if dimensions > 1 else tensor
    return torch.view_as_complex(pairs.contiguous())
