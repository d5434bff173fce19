"""Normalisations. All of them centre and scale over some dimensions, y = w * standardise(x) + b.

The derivative of the standardisation, (I - 11^T/n - z z^T/n) / s, is symmetric: one function
serves tangents and cotangents.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Size, Tensor

from dynstab.linear.rules.shapes import broadcast, shifted, sum_to
from dynstab.linear.rules.table import Call, Diagonal, Linearisation, pointwise, rule


class Standardisation:
    """x -> (x - mean) / s over `dims`, at a fixed x given by z = its output and 1/s."""

    def __init__(self, z: Tensor, inverse: Tensor, dims: Sequence[int]) -> None:
        self.z, self.inverse = z, inverse
        self.dims = shifted(dims, z.ndim)

    def apply(self, moving: Tensor) -> Tensor:
        """The derivative, on tangents or cotangents (k, *z.shape)."""
        mean = moving.mean(self.dims, keepdim=True)
        along = (moving * self.z).mean(self.dims, keepdim=True)
        return torch.addcmul(moving, self.z, along, value=-1).sub_(mean).mul_(self.inverse)


def normalisation(
    call: Call, core: Standardisation, shape: Size, weight: Tensor | None, parameter_shape: Size
) -> Linearisation:
    """w * standardise(x) + b, for tangents of x, w and b.

    Args:
        shape: x as the standardisation sees it. parameter_shape: w and b, broadcastable to that.
    """
    w = None if weight is None else weight.reshape(parameter_shape)
    own = call.output[0].shape

    def push(tangents: Sequence[Tensor]) -> Tensor:
        total = None
        for slot, tangent in zip(call.slots, tangents, strict=True):
            k = tangent.shape[0]
            if slot == ("input",):
                term = core.apply(tangent.reshape(k, *shape))
                term = term if w is None else term * w
            else:
                term = broadcast(tangent.reshape(k, *parameter_shape), shape)
                term = term * core.z if slot == ("weight",) else term
            total = term if total is None else total + term
        assert total is not None
        return total.reshape(-1, *own)

    def pull(cotangent: Tensor) -> tuple[Tensor, ...]:
        k = cotangent.shape[0]
        wide = cotangent.reshape(k, *shape)
        by_slot = {
            "input": lambda: core.apply(wide if w is None else wide * w).reshape(k, *own),
            "weight": lambda: sum_to(wide * core.z, parameter_shape).reshape(k, -1),
            "bias": lambda: sum_to(wide, parameter_shape).reshape(k, -1),
        }
        return tuple(by_slot[slot[0]]().reshape(k, *call.value(slot).shape) for slot in call.slots)

    return Linearisation(push, pull)


@rule("native_layer_norm", first_output_only=True)
def layer_norm(call: Call) -> Linearisation:
    x, (_, mean, inverse) = call["input"], call.output
    dims = range(x.ndim - len(call["normalized_shape"]), x.ndim)
    core = Standardisation((x - mean) * inverse, inverse, dims)
    return normalisation(call, core, x.shape, call["weight"], Size(call["normalized_shape"]))


@rule("native_group_norm", first_output_only=True)
def group_norm(call: Call) -> Linearisation:
    x, groups, (_, mean, inverse) = call["input"], call["group"], call.output
    n, channels = x.shape[:2]
    shape = Size((n, groups, channels // groups, x[0, 0].numel()))
    wide = x.reshape(shape)
    mean, inverse = mean.reshape(n, groups, 1, 1), inverse.reshape(n, groups, 1, 1)
    core = Standardisation((wide - mean) * inverse, inverse, (2, 3))
    return normalisation(call, core, shape, call["weight"], Size((groups, channels // groups, 1)))


@rule(
    "native_batch_norm cudnn_batch_norm _native_batch_norm_legit _native_batch_norm_legit_functional "
    "_native_batch_norm_legit.no_stats",
    first_output_only=True,
)
def batch_norm(call: Call) -> Linearisation | Diagonal:
    """Statistics of the batch where it trains, a fixed affine map otherwise."""
    if not call["training"]:
        return fixed_statistics(call)
    x, weight = call["input"], call["weight"]
    dims = (0, *range(2, x.ndim))
    per_channel = Size((x.shape[1], *(1,) * (x.ndim - 2)))
    variance, mean = torch.var_mean(x, dims, correction=0, keepdim=True)
    inverse = (variance + (call.get("eps", call.get("epsilon")) or 0.0)).rsqrt()
    core = Standardisation((x - mean) * inverse, inverse, dims)
    return normalisation(call, core, x.shape, weight, per_channel)


def fixed_statistics(call: Call) -> Linearisation | Diagonal:
    x, weight = call["input"], call["weight"]
    per_channel = (-1, *(1,) * (x.ndim - 2))
    inverse = (call["running_var"] + (call.get("eps", call.get("epsilon")) or 0.0)).rsqrt().reshape(per_channel)
    if call.slots == (("input",),):
        return Diagonal(((inverse if weight is None else inverse * weight.reshape(per_channel)).to(x.dtype),))
    core = FixedScale((x - call["running_mean"].reshape(per_channel)) * inverse, inverse)
    return normalisation(call, core, x.shape, weight, Size((x.shape[1], *(1,) * (x.ndim - 2))))


class FixedScale(Standardisation):
    """x -> (x - mean) / s with statistics that do not move."""

    def __init__(self, z: Tensor, inverse: Tensor) -> None:
        super().__init__(z, inverse, (0,))

    def apply(self, moving: Tensor) -> Tensor:
        return moving * self.inverse


@pointwise("_native_batch_norm_legit_no_training", only=("input",), first_output_only=True)
def batch_norm_inference(call: Call) -> Diagonal | Linearisation:
    return fixed_statistics(call)
