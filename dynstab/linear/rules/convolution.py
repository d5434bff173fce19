"""Convolutions, and other linear ops that treat dimension 0 as a batch: k is folded into it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dynstab.linear.rules.shapes import fold
from dynstab.linear.rules.table import Call, Linearisation, rule

aten = torch.ops.aten


@rule("convolution _convolution")
def convolution(call: Call) -> Linearisation:
    """Plain, strided, dilated, grouped, transposed, in 1 to 3 dimensions."""
    x, weight, form = call["input"], call["weight"], _form(call)

    def push(tangents: Sequence[Tensor]) -> Tensor:
        total = None
        for slot, tangent in zip(call.slots, tangents, strict=True):
            k = tangent.shape[0]
            if slot == ("input",):
                term = aten.convolution(fold(tangent), weight, None, *form).reshape(k, *call.output.shape)
            elif slot == ("weight",):
                term = torch.stack([aten.convolution(x, moving, None, *form) for moving in tangent])
            else:
                term = tangent.reshape(k, 1, -1, *([1] * (x.ndim - 2))).expand(k, *call.output.shape)
            total = term if total is None else total + term
        assert total is not None
        return total

    def pull(cotangent: Tensor) -> tuple[Tensor, ...]:
        k = cotangent.shape[0]

        def to_input() -> Tensor:
            shape = (k * x.shape[0], *x.shape[1:])
            stand_in = cotangent.new_empty(1).expand(shape)
            return _backward(fold(cotangent), stand_in, weight, form, 0).reshape(k, *x.shape)

        by_slot = {
            "input": to_input,
            "weight": lambda: torch.stack([_backward(one, x, weight, form, 1) for one in cotangent]),
            "bias": lambda: cotangent.sum((1, *range(3, cotangent.ndim))),
        }
        return tuple(by_slot[slot[0]]() for slot in call.slots)

    return Linearisation(push, pull)


def _form(call: Call) -> tuple[Any, ...]:
    """stride, padding, dilation, transposed, output_padding, groups."""
    output_padding = call.get("output_padding", [0] * (call["input"].ndim - 2))
    transposed = call.get("transposed", False)
    return call["stride"], call["padding"], call["dilation"], transposed, output_padding, call["groups"]


def _backward(cotangent: Tensor, x: Tensor, weight: Tensor, form: tuple[Any, ...], which: int) -> Tensor:
    mask = [position == which for position in range(3)]
    return aten.convolution_backward(cotangent, x, weight, None, *form, mask)[which]


@rule(
    "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d "
    "avg_pool1d avg_pool2d avg_pool3d col2im im2col upsample_bicubic2d _upsample_bicubic2d_aa "
    "upsample_bilinear2d _upsample_bilinear2d_aa upsample_linear1d upsample_trilinear3d",
)
def linear_over_batch(call: Call) -> Linearisation:
    """Linear in its only moving argument: the op on k * n tangents, and autograd's transpose of the same."""
    x, batched = call.inputs[0], _has_batch(call)

    def lift(moving: Tensor) -> Tensor:
        return fold(moving) if batched else moving

    def push(tangents: Sequence[Tensor]) -> Tensor:
        return call.rerun((lift(tangents[0]),)).reshape(-1, *call.output.shape)

    def pull(cotangent: Tensor) -> tuple[Tensor]:
        k = cotangent.shape[0]
        shape = (k * x.shape[0], *x.shape[1:]) if batched else (k, *x.shape)
        with torch.enable_grad():
            moving = cotangent.new_zeros(shape).requires_grad_()
            output = call.rerun((moving,))
        return (torch.autograd.grad(output, moving, lift(cotangent).reshape(output.shape))[0].reshape(k, *x.shape),)

    return Linearisation(push, pull)


def _has_batch(call: Call) -> bool:
    """Pools and folds also take a single image: then k itself is the batch."""
    name = call.op._schema.name
    spatial = 1 if "1d" in name else 3 if "3d" in name else 2
    if name.endswith("im2col"):
        return call.inputs[0].ndim == 4
    if name.endswith("col2im"):
        return call.inputs[0].ndim == 3
    return call.inputs[0].ndim == spatial + 2
