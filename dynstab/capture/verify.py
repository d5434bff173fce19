"""Does the graph compute what the model computes, and does it follow the parameters?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dynstab.capture.graph import Graph
from dynstab.core.report import Check

if TYPE_CHECKING:
    from dynstab.capture.capture import Subject


def tolerance(dtype: torch.dtype) -> float:
    """The relative deviation that rounding through a deep network may cause."""
    return {torch.float64: 1e-9, torch.float32: 1e-4}.get(dtype, 5e-2)


def deviation(got: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest deviation over all floating tensors, relative to each tensor's largest finite entry.

    Infinite where shapes differ or where only one side is finite.
    """
    if len(got) != len(expected):
        return float("inf")
    worst = 0.0
    for a, b in zip(got, expected, strict=True):
        if a.shape != b.shape:
            return float("inf")
        if not (b.is_floating_point() or b.is_complex()) or b.numel() == 0:
            continue
        worst = max(worst, _largest_gap(a, b))
    return worst


def _largest_gap(a: Tensor, b: Tensor) -> float:
    gap, scale = (a - b).abs().max(), b.abs().max()
    if not (torch.isfinite(gap) and torch.isfinite(scale)):
        finite = torch.isfinite(b)
        if not torch.equal(finite, torch.isfinite(a)):
            return float("inf")
        if not finite.any():
            return 0.0
        gap, scale = (a[finite] - b[finite]).abs().max(), b[finite].abs().max()
    return float(gap / scale.clamp_min(torch.finfo(scale.dtype).tiny))


def check_output(graph: Graph, expected: Sequence[Tensor]) -> Check:
    """The graph's outputs are those of eager mode."""
    error = deviation(graph.call(), expected)
    limit = max(tolerance(t.dtype) for t in expected if t.is_floating_point() or t.is_complex())
    outputs = "1 tensor" if len(expected) == 1 else f"{len(expected)} tensors"
    return Check(
        check="output equals eager",
        passed=error <= limit,
        error=error,
        detail=f"{outputs}, relative to their largest entry, limit {limit:g}",
    )


def check_live_parameters(graph: Graph, subject: Subject) -> Check:
    """The graph moves as eager mode does when every parameter is perturbed."""
    name = "parameters are live"
    if not any(t.is_floating_point() or t.is_complex() for t in subject.parameters.values()):
        return Check(check=name, passed=True, error=0.0, detail="the model has no floating-point parameter")
    parameters = list(subject.parameters.values())
    moved = [(size, perturbed(parameters, size), subject.inputs) for size in _SIZES]
    return _moves_alike(name, graph, subject, moved, "all parameters")


def check_live_inputs(graph: Graph, subject: Subject) -> Check:
    """The graph moves as eager mode does when the inputs are perturbed: nothing of them is baked in."""
    name = "inputs are live"
    if not any(t.is_floating_point() for t in subject.inputs):
        return Check(check=name, passed=True, error=0.0, detail="integer inputs: their embedding moves instead")
    parameters = list(subject.parameters.values())
    moved = [(size, parameters, perturbed(subject.inputs, size)) for size in _SIZES]
    return _moves_alike(name, graph, subject, moved, "all inputs")


_SIZES = (1e-2, 1e-3, 1e-4, 1e-5)


def _moves_alike(
    name: str,
    graph: Graph,
    subject: Subject,
    moved: Sequence[tuple[float, Sequence[Tensor], Sequence[Tensor]]],
    what: str,
) -> Check:
    """The deviation counts against how far the outputs move, or a graph that baked its arguments in would pass.

    The smaller perturbations are for a branch that the first crosses and that depends on
    data (a router that chooses other experts), which no straight-line graph can follow.
    """
    before = [tensor.clone() for tensor in subject.run()]
    limit = max(tolerance(t.dtype) for t in before if t.is_floating_point() or t.is_complex())
    error = change = float("inf")
    for size, parameters, inputs in moved:
        expected = [tensor.clone() for tensor in subject.run(parameters, inputs)]
        with torch.no_grad():
            got = list(graph.module(*parameters, *inputs))
        error, change = deviation(got, expected), deviation(before, expected)
        detail = f"{what} perturbed by {size:g}, which moves the outputs by {change:.2g}"
        # Outputs that move by rounding alone (a signal that fades on its way) cannot tell the two apart.
        untold = change <= 1e-2 * limit
        if error <= limit and (error <= 0.2 * change or untold):
            detail += ": too little to tell" if untold else ""
            return Check(check=name, passed=True, error=error, detail=detail)
    return Check(check=name, passed=False, error=error, detail=f"outputs moved by {change:.2g} in eager mode")


def perturbed(tensors: Sequence[Tensor], size: float) -> list[Tensor]:
    """Floating tensors moved at random by about `size` of each entry."""
    generator = torch.Generator().manual_seed(1)

    def moved(tensor: Tensor) -> Tensor:
        if not (tensor.is_floating_point() or tensor.is_complex()):
            return tensor
        noise = torch.rand(tensor.shape, generator=generator, dtype=torch.float32).to(tensor)
        # Multiplicative, so that variances stay positive; zeros move too, or a baked zero would pass.
        return tensor.detach() * (1 + size * noise) + (tensor.detach() == 0).to(tensor) * size * noise

    return [moved(tensor) for tensor in tensors]
