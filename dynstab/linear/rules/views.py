"""Ops that rename positions: the tangent's view is the primal's, one dimension further in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dynstab.linear.rules.shapes import broadcast, sum_to
from dynstab.linear.rules.table import Call, Linearisation, rule


@rule("view _unsafe_view reshape _reshape_alias squeeze unsqueeze flatten unflatten view_copy")
def reshape(call: Call) -> Linearisation:
    old, new = call.inputs[0].shape, call.output.shape
    return Linearisation(
        # Not -1 for the number of tangents: it has no answer where the tensor is empty.
        lambda tangents: tangents[0].reshape(len(tangents[0]), *new),
        lambda cotangent: (cotangent.reshape(len(cotangent), *old),),
    )


@rule("expand expand_copy broadcast_to")
def expand(call: Call) -> Linearisation:
    old, new = call.inputs[0].shape, call.output.shape
    return Linearisation(
        lambda tangents: broadcast(tangents[0], new),
        lambda cotangent: (sum_to(cotangent, old),),
    )


@rule("permute transpose t numpy_T mT movedim swapaxes")
def permute(call: Call) -> Linearisation:
    order = [0, *(dim + 1 for dim in dimension_order(call))]
    inverse = [order.index(position) for position in range(len(order))]
    return Linearisation(
        lambda tangents: tangents[0].permute(order),
        lambda cotangent: (cotangent.permute(inverse),),
    )


def dimension_order(call: Call) -> list[int]:
    """Where each dimension of the output comes from, read off a stand-in whose sizes are all different."""
    ndim = call.inputs[0].ndim
    probe = torch.empty(tuple(range(2, ndim + 2)), device="meta")
    return [size - 2 for size in call.rerun((probe,)).shape]


@rule("select")
def select(call: Call) -> Linearisation:
    dim, index, shape = call["dim"] % call.inputs[0].ndim + 1, int(call["index"]), call.inputs[0].shape

    def pull(cotangent: Tensor) -> tuple[Tensor]:
        full = cotangent.new_zeros((cotangent.shape[0], *shape))
        full.select(dim, index).copy_(cotangent)
        return (full,)

    return Linearisation(lambda tangents: tangents[0].select(dim, index), pull)


@rule("slice narrow")
def slice_(call: Call) -> Linearisation:
    shape = call.inputs[0].shape
    where = (slice(None),) * (call["dim"] % len(shape) + 1) + (_range(call, shape),)

    def pull(cotangent: Tensor) -> tuple[Tensor]:
        full = cotangent.new_zeros((cotangent.shape[0], *shape))
        full[where] = cotangent
        return (full,)

    return Linearisation(lambda tangents: tangents[0][where], pull)


def _range(call: Call, shape: Sequence[int]) -> slice:
    if "length" in call.arguments:
        start = int(call["start"]) % max(shape[call["dim"]], 1)
        return slice(start, start + int(call["length"]))
    return slice(call["start"], call["end"], call.get("step", 1))


@rule("split split_with_sizes chunk tensor_split split_copy unsafe_split unsafe_chunk")
def split(call: Call) -> Linearisation:
    dim = call.get("dim", 0) % call.inputs[0].ndim
    shapes = [part.shape for part in call.output]
    sizes = [shape[dim] for shape in shapes]

    def pull(cotangents: Sequence[Tensor | None]) -> tuple[Tensor]:
        return (torch.cat(filled(cotangents, shapes), dim + 1),)

    return Linearisation(lambda tangents: tangents[0].split(sizes, dim + 1), pull)


@rule("unbind")
def unbind(call: Call) -> Linearisation:
    dim = call.get("dim", 0) % call.inputs[0].ndim
    shapes = [part.shape for part in call.output]
    return Linearisation(
        lambda tangents: tangents[0].unbind(dim + 1),
        lambda cotangents: (torch.stack(filled(cotangents, shapes), dim + 1),),
    )


def filled(cotangents: Sequence[Tensor | None], shapes: Sequence[torch.Size]) -> list[Tensor]:
    """Zeros in the place of the cotangents of outputs that nobody uses."""
    given = next(cotangent for cotangent in cotangents if cotangent is not None)
    return [
        given.new_zeros((given.shape[0], *shape)) if cotangent is None else cotangent
        for cotangent, shape in zip(cotangents, shapes, strict=True)
    ]


@rule("cat")
def cat(call: Call) -> Linearisation:
    # Empty tensors of one dimension may be concatenated with anything; they carry no tangent.
    dim = call.get("dim", 0) % call.output.ndim
    parts = [part for part in call["tensors"] if part.shape != (0,)]
    sizes = [part.shape[dim] for part in parts]
    kept = [position for position, part in enumerate(call["tensors"]) if part.shape != (0,)]
    slots = [kept.index(int(slot[1])) if slot[1] in kept else None for slot in call.slots]  # type: ignore[misc]
    shapes = [part.shape for part in parts]
    empties = [call.value(slot).shape for slot in call.slots]
    if len(parts) == 1 and slots == [0]:
        return Linearisation(lambda tangents: tangents[0], lambda cotangent: (cotangent,))

    def push(tangents: Sequence[Tensor]) -> Tensor:
        row: list[Tensor | None] = [None] * len(parts)
        for slot, tangent in zip(slots, tangents, strict=True):
            if slot is not None:
                row[slot] = tangent
        return torch.cat(filled(row, shapes), dim + 1)

    def pull(cotangent: Tensor) -> tuple[Tensor, ...]:
        pieces = cotangent.split(sizes, dim + 1)
        return tuple(
            cotangent.new_zeros((cotangent.shape[0], *shape)) if slot is None else pieces[slot]
            for slot, shape in zip(slots, empties, strict=True)
        )

    return Linearisation(push, pull)


@rule("stack")
def stack(call: Call) -> Linearisation:
    dim = call.get("dim", 0) % call.output.ndim
    slots = [int(slot[1]) for slot in call.slots]  # type: ignore[misc]
    shapes = [part.shape for part in call["tensors"]]

    def push(tangents: Sequence[Tensor]) -> Tensor:
        row: list[Tensor | None] = [None] * len(shapes)
        for slot, tangent in zip(slots, tangents, strict=True):
            row[slot] = tangent
        return torch.stack(filled(row, shapes), dim + 1)

    def pull(cotangent: Tensor) -> tuple[Tensor, ...]:
        pieces = cotangent.unbind(dim + 1)
        return tuple(pieces[slot] for slot in slots)

    return Linearisation(push, pull)


@rule("_to_copy to")
def cast(call: Call) -> Linearisation:
    """A change of dtype is linear; the tape casts where the dtypes of input and output differ."""
    return Linearisation(lambda tangents: tangents[0], lambda cotangent: (cotangent,))


@rule("glu")
def glu(call: Call) -> Linearisation:
    """a * sigmoid(b), for the two halves a and b of the input."""
    dim = call["dim"] % call.inputs[0].ndim
    a, b = call.inputs[0].chunk(2, dim)
    gate = b.sigmoid()
    slope = a * gate * (1.0 - gate)

    def push(tangents: Sequence[Tensor]) -> Tensor:
        first, second = tangents[0].chunk(2, dim + 1)
        return (first * gate).addcmul_(second, slope)

    return Linearisation(push, lambda cotangent: (torch.cat((cotangent * gate, cotangent * slope), dim + 1),))
