"""Ops without a rule: torch's own derivatives, one op at a time.

In order: the op's backward graph, kept, which gives J^T, and J as the derivative of
that linear map (double backward); forward mode; central differences for J alone.
Each candidate is tried on one tangent before it is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dynstab.core.errors import DynstabError
from dynstab.linear.rules.table import Call, Linearisation, op_name

# What torch raises where a derivative is not there, or not under vmap.
_REFUSALS = (RuntimeError, NotImplementedError, TypeError, ValueError, IndexError)


def fall_back(call: Call) -> Linearisation:
    """The derivative of an op that the table does not know, with the route that gave it."""
    reasons = []
    for route, build in (
        ("double backward", _double_backward),
        ("forward mode", _forward_mode),
        ("finite differences", _finite_differences),
    ):
        try:
            push, pull = build(call)
            push([torch.zeros_like(tensor).unsqueeze(0) for tensor in call.inputs])
        except _REFUSALS as error:
            reasons.append(f"{route}: {' '.join(str(error).split())[:120]}")
            continue
        return Linearisation(push, pull, f"{route}: {label(call.op)}")
    raise DynstabError(
        f"{label(call.op)} has no derivative ({' | '.join(reasons)})", remedy="cut the network so that it lies outside"
    )


def label(op: Any) -> str:
    """What the report calls an op: "aten.foo"."""
    return f"aten.{op_name(op)[1]}" if op_name(op)[1] else str(getattr(op, "__name__", op))


def _moving(call: Call) -> tuple[list[Tensor], Callable[..., tuple[Tensor, ...]], list[int | None]]:
    """Detached inputs, the op on them with floating outputs alone, and where those stand (None: a single tensor)."""
    single = isinstance(call.output, Tensor)
    outputs = [call.output] if single else list(call.output)
    kept = [i for i, out in enumerate(outputs) if isinstance(out, Tensor) and _moves(out)]

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        result = call.rerun(inputs)
        return (result,) if single else tuple(result[i] for i in kept)

    return [tensor.detach() for tensor in call.inputs], run, [None] if single else list(kept)


def _moves(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _spread(call: Call, places: list[int | None], values: Sequence[Tensor]) -> Any:
    """Tangents of the floating outputs, in the form of the op's output."""
    if places == [None]:
        return values[0]
    row: list[Tensor | None] = [None] * len(call.output)
    for place, value in zip(places, values, strict=True):
        assert place is not None
        row[place] = value
    return row


def _gather(cotangent: Any, places: list[int | None], outputs: Sequence[Tensor]) -> list[Tensor]:
    """The cotangents of the floating outputs, zeros for those that nobody uses: (k, *shape) each."""
    given = [cotangent] if places == [None] else [cotangent[place] for place in places]
    k = next(c.shape[0] for c in given if c is not None)
    return [
        out.new_zeros((k, *out.shape)) if c is None else c.to(out.dtype) for c, out in zip(given, outputs, strict=True)
    ]


def _gradients(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], cotangents: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """J^T c for k cotangents, all at once where the op's backward can be vectorised."""
    options: dict[str, Any] = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
    try:
        return torch.autograd.grad(outputs, inputs, cotangents, is_grads_batched=True, **options)
    except _REFUSALS:
        one_by_one = [torch.autograd.grad(outputs, inputs, one, **options) for one in zip(*cotangents, strict=True)]
        return tuple(torch.stack(column) for column in zip(*one_by_one, strict=True))


def _double_backward(call: Call) -> tuple[Callable[..., Any], Callable[..., Any]]:
    leaves, run, places = _moving(call)
    with torch.enable_grad():
        inputs = [leaf.requires_grad_() for leaf in leaves]
        outputs = run(*inputs)
        if not all(out.requires_grad for out in outputs):
            raise RuntimeError("the op records no backward")
        dummies = [torch.zeros_like(out).requires_grad_() for out in outputs]
        pulled = torch.autograd.grad(outputs, inputs, dummies, create_graph=True, materialize_grads=True)
        linear = [(row, place) for row, place in zip(pulled, range(len(inputs)), strict=True) if row.requires_grad]

    def push(tangents: Sequence[Tensor]) -> Any:
        if not linear:
            return _spread(call, places, [out.new_zeros((tangents[0].shape[0], *out.shape)) for out in outputs])
        rows = [row for row, _ in linear]
        moved = _gradients(rows, dummies, [tangents[place].to(rows[0].dtype) for _, place in linear])
        return _spread(call, places, [tangent.detach() for tangent in moved])

    def pull(cotangent: Any) -> tuple[Tensor, ...]:
        return _gradients(outputs, inputs, _gather(cotangent, places, outputs))

    return push, pull


def _forward_mode(call: Call) -> tuple[Callable[..., Any], Callable[..., Any]]:
    inputs, run, places = _moving(call)

    def one(*tangents: Tensor) -> tuple[Tensor, ...]:
        return torch.func.jvp(run, tuple(inputs), tangents)[1]

    def push(tangents: Sequence[Tensor]) -> Any:
        try:
            moved = torch.func.vmap(one)(*tangents)
        except _REFUSALS:
            moved = tuple(torch.stack(c) for c in zip(*(one(*t) for t in zip(*tangents, strict=True)), strict=True))
        return _spread(call, places, moved)

    def pull(cotangent: Any) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            leaves = [tensor.detach().requires_grad_() for tensor in inputs]
            outputs = run(*leaves)
        if not any(out.requires_grad for out in outputs):
            raise _no_transpose(call, "forward mode")
        return _gradients(outputs, leaves, _gather(cotangent, places, outputs))

    return push, pull


def _finite_differences(call: Call) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """J t = (f(x + h t) - f(x - h t)) / 2h, in float64 where the op takes it; h balances rounding and truncation."""
    inputs, run, places = _moving(call)
    try:
        run(*(tensor.double() for tensor in inputs))
        dtype = torch.float64
    except _REFUSALS:
        dtype = inputs[0].dtype
    exact = [tensor.to(dtype) for tensor in inputs]
    scale = max(float(tensor.abs().max()) if tensor.numel() else 0.0 for tensor in exact) or 1.0
    relative = torch.finfo(dtype).eps ** (1 / 3)

    def one(tangents: Sequence[Tensor]) -> tuple[Tensor, ...]:
        size = max(float(t.abs().max()) if t.numel() else 0.0 for t in tangents)
        h = relative * scale / size if size > 0 else 1.0
        ahead = run(*(x + h * t.to(dtype) for x, t in zip(exact, tangents, strict=True)))
        behind = run(*(x - h * t.to(dtype) for x, t in zip(exact, tangents, strict=True)))
        return tuple(((a - b) / (2 * h)).to(inputs[0].dtype) for a, b in zip(ahead, behind, strict=True))

    def push(tangents: Sequence[Tensor]) -> Any:
        rows = [one(row) for row in zip(*tangents, strict=True)]
        return _spread(call, places, [torch.stack(column) for column in zip(*rows, strict=True)])

    def pull(cotangent: Any) -> tuple[Tensor, ...]:
        raise _no_transpose(call, "finite differences")

    return push, pull


def _no_transpose(call: Call, route: str) -> DynstabError:
    return DynstabError(
        f"{label(call.op)} has no backward, and {route} gives J alone",
        expected="an op with a backward for J^T",
        remedy="use what needs forward products only, or cut the network so that the op lies outside",
    )
