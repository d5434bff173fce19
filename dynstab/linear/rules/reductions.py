"""Reductions: each entry of the input reaches one entry of the output."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dynstab.linear.rules.shapes import shifted
from dynstab.linear.rules.table import Call, Linearisation, rule


@rule("sum mean")
def total(call: Call) -> Linearisation:
    x = call.inputs[0]
    dims = shifted(call.get("dim"), x.ndim)
    wide = tuple(1 if d + 1 in dims else size for d, size in enumerate(x.shape))
    scale = call.output.numel() / max(x.numel(), 1) if call.op._schema.name == "aten::mean" else 1.0
    out = call.output.shape

    def push(tangents: Sequence[Tensor]) -> Tensor:
        moving = tangents[0]
        summed = moving.sum(dims) if moving.ndim > 1 else moving
        return (summed * scale if scale != 1.0 else summed).reshape(-1, *out)

    def pull(cotangent: Tensor) -> tuple[Tensor]:
        small = cotangent * scale if scale != 1.0 else cotangent
        return (small.reshape(-1, *wide).expand(-1, *x.shape),)

    return Linearisation(push, pull)


@rule(
    "amax amin logsumexp linalg_vector_norm max max.dim median median.dim min min.dim nansum norm prod std var",
    first_output_only=True,
)
def reduction(call: Call) -> Linearisation:
    """The derivative has the input's shape; autograd on the op itself gives it."""
    x = call.inputs[0]
    with torch.enable_grad():
        moving = x.detach().requires_grad_()
        output = call.rerun((moving,))
        output = output if isinstance(output, Tensor) else output[0]
        (factor,) = torch.autograd.grad(output, moving, torch.ones_like(output))
    dims = shifted(call.get("dim"), x.ndim)
    wide = tuple(1 if d + 1 in dims else size for d, size in enumerate(x.shape))

    def push(tangents: Sequence[Tensor]) -> Tensor:
        weighted = tangents[0] * factor
        return (weighted.sum(dims) if x.ndim else weighted).reshape(-1, *output.shape)

    def pull(cotangent: Tensor) -> tuple[Tensor]:
        return (cotangent.reshape(-1, *wide) * factor,)

    return Linearisation(push, pull)


@rule("cumsum")
def cumsum(call: Call) -> Linearisation:
    dim = call["dim"] % max(call.inputs[0].ndim, 1) + 1
    if call.inputs[0].ndim == 0:
        return Linearisation(lambda tangents: tangents[0], lambda cotangent: (cotangent,))
    return Linearisation(
        lambda tangents: tangents[0].cumsum(dim),
        lambda cotangent: (cotangent.flip(dim).cumsum(dim).flip(dim),),
    )
