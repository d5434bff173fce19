"""Which dimension counts the inputs, and do they stay apart? Found by pushing tangents, never assumed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dynstab.linear.layout import Layout

Tensors = tuple[Tensor, ...]
Push = Callable[[Tensors], Tensors]


def find_layouts(
    states: Sequence[Tensors], pushes: Sequence[Push], axis: tuple[int, int] | None
) -> tuple[list[Layout], bool]:
    """A layout for each state, and whether the inputs are coupled.

    `axis` is the (dimension, size) that should count inputs in the first state. A tangent on
    the first input alone must stay there through every step. Where inputs influence each
    other (BatchNorm in training, a shared adaptive step) the batch is one single state.
    """
    whole = [Layout(shapes=tuple(t.shape for t in state)) for state in states]
    if axis is None or axis[1] == 1 or not pushes:
        return whole, False
    dim, batch = axis
    dims = _follow(states, pushes, batch, dim)
    if dims is None:
        # A vector whose entries mix is one input that came without a batch.
        return whole, any(t.ndim > 1 for t in states[0])
    return [
        Layout(shapes=layout.shapes, samples=batch, sample_dims=found)
        for layout, found in zip(whole, dims, strict=True)
    ], False


def _follow(states: Sequence[Tensors], pushes: Sequence[Push], batch: int, dim: int) -> list[tuple[int, ...]] | None:
    """The dimension that counts inputs in every state, None where one input reaches another."""
    if any(t.ndim <= dim or t.shape[dim] != batch for t in states[0]):
        return None
    tangents = tuple(_first_only(t, dim) for t in states[0])
    dims: list[tuple[int, ...]] = [(dim,) * len(tangents)]
    for push in pushes:
        tangents = push(tangents)
        found = [_confined(t[0], batch, dim) for t in tangents]
        if any(d is None for d in found):
            return None
        dims.append(tuple(d for d in found if d is not None))
        tangents = tuple(_rescaled(t) for t in tangents)
    return dims


def _first_only(tensor: Tensor, dim: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    tangent = torch.zeros(tensor.shape, dtype=tensor.dtype, device=tensor.device)
    part = tangent.select(dim, 0)
    part.copy_(torch.randn(part.shape, generator=generator))
    return tangent.unsqueeze(0)


def _confined(tangent: Tensor, batch: int, expected: int) -> int | None:
    """The dimension of size `batch` along which only the first entry moves; the expected one is tried first."""
    for dim in sorted(range(tangent.ndim), key=lambda d: d != expected):
        # NaN is no evidence: 0 times NaN in a weight reaches every input.
        if tangent.shape[dim] == batch and not tangent.narrow(dim, 1, batch - 1).nan_to_num().any():
            return dim
    return None


def _rescaled(tangent: Tensor) -> Tensor:
    """Keep a long push within range; only the pattern of zeros matters."""
    largest = tangent.abs().max()
    return tangent / largest if torch.isfinite(largest) and largest > 0 else tangent


def is_causal(states: Sequence[Tensors], pushes: Sequence[Push], token_dims: Sequence[int | None]) -> bool:
    """Whether the last token never reaches an earlier one, in any state."""
    lengths = {state[0].shape[dim] for state, dim in zip(states, token_dims, strict=True) if dim is not None}
    if any(dim is None for dim in token_dims) or any(len(state) > 1 for state in states):
        return False
    if len(lengths) != 1 or lengths == {1}:
        return False
    (length,) = lengths
    first = token_dims[0]
    assert first is not None
    tangent = torch.zeros_like(states[0][0])
    tangent.narrow(first, length - 1, 1).fill_(1.0)
    tangent.mul_(torch.randn(tangent.shape, generator=torch.Generator().manual_seed(0)).to(tangent))
    tangents: Tensors = (tangent.unsqueeze(0),)
    for push, dim in zip(pushes, token_dims[1:], strict=True):
        assert dim is not None
        tangents = tuple(_rescaled(t) for t in push(tangents))
        if tangents[0].narrow(dim + 1, 0, length - 1).any():
            return False
    return True
