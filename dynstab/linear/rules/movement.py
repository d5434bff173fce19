"""Ops that move entries without changing them.

Running the op on the numbers 1, 2, 3, ... tells where each entry of the output comes from
(0: from nowhere). With that map every such op is one gather, and its transpose one scatter.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dynstab.linear.rules.table import Call, Linearisation, UnsupportedForm, rule

# Numbers up to here are exact in float64, the dtype in which every op of this table runs.
_LARGEST = 2**53


@rule(
    "_unsafe_index as_strided as_strided_copy channel_shuffle diag_embed diagonal diagonal_scatter flip gather "
    "index index_select masked_select pixel_shuffle pixel_unshuffle reflection_pad1d reflection_pad2d "
    "reflection_pad3d repeat replication_pad1d replication_pad2d replication_pad3d roll rot90 scatter.src "
    "select_scatter slice_scatter take tril triu unfold upsample_nearest1d upsample_nearest2d "
    "upsample_nearest3d _upsample_nearest_exact2d masked_scatter",
)
def movement(call: Call) -> Linearisation:
    return moved(call, origins(call))


@rule("constant_pad_nd")
def constant_pad(call: Call) -> Linearisation:
    zero = {**call.arguments, "value": 0.0}
    return moved(call, origins(Call(call.op, zero, call.slots, call.output)))


@rule("scatter.value index_fill fill")
def overwritten(call: Call) -> Linearisation:
    """Entries replaced by a number come from nowhere."""
    if call.slots != (("self",),):
        raise UnsupportedForm("a value that moves")
    zero = {**call.arguments, "value": 0.0}
    return moved(call, origins(Call(call.op, zero, call.slots, call.output)))


@rule("index_put _unsafe_index_put")
def index_put(call: Call) -> Linearisation:
    if call.get("accumulate", False):
        raise UnsupportedForm("accumulation")
    return moved(call, origins(call))


@rule("embedding")
def embedding(call: Call) -> Linearisation:
    """Rows of the weight: linear in it, and gathered row by row."""
    rows, weight, shape = call["indices"].reshape(-1), call["weight"], call.output.shape

    def pull(cotangent: Tensor) -> tuple[Tensor]:
        out = cotangent.new_zeros((cotangent.shape[0], *weight.shape))
        return (out.index_add_(1, rows, cotangent.reshape(cotangent.shape[0], -1, weight.shape[1])),)

    return Linearisation(lambda tangents: tangents[0].index_select(1, rows).reshape(-1, *shape), pull)


@rule("scatter_add index_add")
def accumulate(call: Call) -> Linearisation:
    """self plus entries of the source at chosen positions."""
    source_name = "src" if "src" in call.arguments else "source"
    alpha = float(call.get("alpha", 1))
    shape, source = call["self"].shape, call[source_name]
    positions = torch.arange(call["self"].numel(), device=source.device).reshape(shape)
    if source_name == "src":
        positions = positions.gather(call["dim"], call["index"])
        source_range = tuple(slice(size) for size in call["index"].shape)
    else:
        positions = positions.index_select(call["dim"], call["index"])
        source_range = (slice(None),) * source.ndim
    flat, inner = positions.reshape(-1), (slice(None), *source_range)

    def push(tangents: Sequence[Tensor]) -> Tensor:
        k = tangents[0].shape[0]
        out = tangents[0].new_zeros((k, call["self"].numel()))
        for slot, tangent in zip(call.slots, tangents, strict=True):
            if slot == ("self",):
                out += tangent.reshape(k, -1)
            else:
                out.index_add_(1, flat, tangent[inner].reshape(k, -1), alpha=alpha)
        return out.reshape(k, *shape)

    def pull(cotangent: Tensor) -> tuple[Tensor, ...]:
        k = cotangent.shape[0]

        def to_source() -> Tensor:
            out = cotangent.new_zeros((k, *source.shape))
            out[inner] = (cotangent.reshape(k, -1).index_select(1, flat) * alpha).reshape(k, *positions.shape)
            return out

        return tuple(cotangent if slot == ("self",) else to_source() for slot in call.slots)

    return Linearisation(push, pull)


@rule("max_pool2d_with_indices max_pool3d_with_indices", first_output_only=True)
def max_pool(call: Call) -> Linearisation:
    """The op names the winners itself, counted within each plane."""
    indices = call.output[1]
    spatial = 3 if "3d" in call.op._schema.name else 2
    return within_planes(call, indices, spatial)


@rule("adaptive_max_pool2d adaptive_max_pool3d", first_output_only=True)
def adaptive_max_pool(call: Call) -> Linearisation:
    return within_planes(call, call.output[1], 3 if "3d" in call.op._schema.name else 2)


def within_planes(call: Call, indices: Tensor, spatial: int) -> Linearisation:
    shape = call.inputs[0].shape
    plane = shape[-spatial:].numel()
    planes = shape[:-spatial].numel()
    offsets = torch.arange(planes, device=indices.device).reshape(*shape[:-spatial], *([1] * spatial)) * plane
    return moved(call, (indices + offsets).reshape(-1) + 1)


@rule("topk sort sort.stable kthvalue mode cummax cummin", first_output_only=True)
def by_indices(call: Call) -> Linearisation:
    """Values and where they stood along one dimension."""
    x, (values, indices) = call.inputs[0], call.output
    if x.ndim == 0:
        return Linearisation(lambda tangents: tangents[0], lambda cotangent: (cotangent,))
    dim = call.get("dim", -1) % x.ndim
    if indices.ndim < x.ndim:
        indices = indices.unsqueeze(dim)
    positions = torch.arange(1, x.numel() + 1, device=x.device).reshape(x.shape)
    origin = positions.gather(dim, indices).reshape(values.shape)
    return moved(call, origin.reshape(-1))


def origins(call: Call) -> Tensor:
    """For each entry of the output, 1 + its position among the inputs' entries laid end to end, or 0."""
    if sum(tensor.numel() for tensor in call.inputs) >= _LARGEST:
        raise UnsupportedForm("more entries than float64 can count")
    arguments = {
        name: torch.zeros_like(value, dtype=torch.float64)
        if isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())
        else value
        for name, value in call.arguments.items()
    }
    numbers, start = [], 1
    for tensor in call.inputs:
        count = torch.arange(start, start + tensor.numel(), dtype=torch.float64, device=tensor.device)
        # as_strided sees memory, so the numbers lie in it as the entries do.
        laid = torch.empty_strided(tensor.shape, tensor.stride(), dtype=torch.float64, device=tensor.device)
        numbers.append(laid.copy_(count.view(tensor.shape)))
        start += tensor.numel()
    return Call(call.op, arguments, call.slots, None).rerun(numbers).reshape(-1).long()


def moved(call: Call, origin: Tensor) -> Linearisation:
    """Gather by `origin` (see `origins`), and scatter by it."""
    shapes = [tensor.shape for tensor in call.inputs]
    sizes = [shape.numel() for shape in shapes]
    output = call.output if isinstance(call.output, Tensor) else call.output[0]
    shape = output.shape
    nowhere = (origin == 0).any()
    source = (origin - 1).clamp_(min=0)
    present = (origin > 0).to(output.dtype) if nowhere else None

    def push(tangents: Sequence[Tensor]) -> Tensor:
        k = tangents[0].shape[0]
        flat = [tangent.reshape(k, -1) for tangent in tangents]
        row = flat[0] if len(flat) == 1 else torch.cat(flat, 1)
        if row.shape[1] == 0:
            return row.new_zeros((k, *shape))
        result = row.index_select(1, source)
        return (result if present is None else result.mul_(present)).reshape(k, *shape)

    def pull(cotangent: Tensor) -> tuple[Tensor, ...]:
        k = cotangent.shape[0]
        flat = cotangent.reshape(k, -1)
        out = flat.new_zeros((k, sum(sizes)))
        if out.shape[1]:
            out.index_add_(1, source, flat if present is None else flat * present)
        return tuple(part.reshape(k, *own) for part, own in zip(out.split(sizes, 1), shapes, strict=True))

    return Linearisation(push, pull)
