"""Ops without a rule: torch's own derivatives, one op at a time.

In order: the op's backward graph, kept, which gives J^T, and J as the derivative of
that linear map (double backward); forward mode for J; J as the transpose of J^T, formed
row by row where it is small; central differences for J. The last three take J^T from
the op's backward if it has one.
Each candidate is tried on two tangents before it is taken: what it pushes must be finite
where the op is, and must be what its transpose says, if it has one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from dynstab.core.errors import DynstabError
from dynstab.linear.rules.table import Call, Linearisation, moves, op_name

_MOST_FORMED = 2**22  # entries of a Jacobian that is formed from its rows
# What torch raises where a derivative is not there, or not under vmap.
_REFUSALS = (RuntimeError, NotImplementedError, TypeError, ValueError, IndexError)


def fall_back(call: Call) -> Linearisation:
    """The derivative of an op that the table does not know, with the route that gave it."""
    reasons = []
    for route, build in (
        ("double backward", _double_backward),
        ("forward mode", _forward_mode),
        ("transposition", _transposition),
        ("finite differences", _finite_differences),
    ):
        try:
            push, pull = build(call)
            _try_out(call, push, pull)
        except _REFUSALS as error:
            reasons.append(f"{route}: {' '.join(str(error).split())[:120]}")
            continue
        return Linearisation(push, pull, f"{route}: {label(call.op)}")
    own = not isinstance(call.op, torch._ops.OpOverload)
    remedy = "--linearisation forward shows the derivative of its forward" if own else ""
    raise DynstabError(
        f"{label(call.op)} has no derivative ({' | '.join(reasons)})",
        remedy=remedy or "cut the network so that it lies outside",
    )


def _try_out(call: Call, push: Callable[..., Any], pull: Callable[..., Any]) -> None:
    """Raise RuntimeError unless <J u, w> = <u, J^T w> for two random pairs."""
    generator = torch.Generator().manual_seed(0)

    def random(like: Tensor) -> Tensor:
        return torch.randn((2, *like.shape), generator=generator).to(device=like.device, dtype=like.dtype)

    places, outputs = _results(call)
    tangents, cotangents = [random(tensor) for tensor in call.inputs], [random(out) for out in outputs]
    moved = push(tangents)
    pushed = [moved] if places == [None] else [moved[place] for place in places]
    if [tangent.shape[1:] for tangent in pushed] != [out.shape for out in outputs]:
        raise RuntimeError("tangents come out in another shape")
    try:
        pulled = pull(_spread(call, places, cotangents))
    except DynstabError:
        return
    size = _inner([p.abs() for p in pushed], [c.abs() for c in cotangents])
    difference = (_inner(pushed, cotangents) - _inner(tangents, pulled)).abs()
    if bool((difference > 100 * torch.finfo(call.inputs[0].dtype).eps ** (2 / 3) * size).any()):
        raise RuntimeError("its two directions contradict each other")


def _inner(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Real inner products of pairs of states, (k,)."""
    terms = [(a * b.conj()).real.reshape(a.shape[0], -1).double().sum(1) for a, b in zip(first, second, strict=True)]
    return torch.stack(terms).sum(0)


def label(op: Any) -> str:
    """What the report calls an op: "aten.foo"."""
    return f"aten.{op_name(op)[1]}" if op_name(op)[1] else str(getattr(op, "__name__", op))


def _results(call: Call) -> tuple[list[Any], list[Tensor]]:
    """The op's floating-point results and where they stand, [None] for the result of an op with one."""
    if isinstance(call.output, Tensor):
        return [None], [call.output]
    places = [i for i, out in enumerate(call.output) if moves(out)]
    return places, [call.output[i] for i in places]


def _moving(call: Call) -> tuple[list[Tensor], Callable[..., tuple[Tensor, ...]], list[Any]]:
    """Detached inputs, the op on them with its floating-point results alone, and where those stand."""
    places, _ = _results(call)

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        result = call.rerun(inputs)
        return (result,) if places == [None] else tuple(result[i] for i in places)

    return [tensor.detach() for tensor in call.inputs], run, places


def _spread(call: Call, places: list[Any], values: Sequence[Tensor]) -> Any:
    """Tangents of the floating outputs, in the form of the op's output."""
    if places == [None]:
        return values[0]
    row: list[Tensor | None] = [None] * len(call.output)
    for place, value in zip(places, values, strict=True):
        row[place] = value
    return row


def _gather(cotangent: Any, places: list[Any], outputs: Sequence[Tensor]) -> list[Tensor]:
    """The cotangents of the floating outputs, zeros for those that nobody uses: (k, *shape) each."""
    given = [cotangent] if places == [None] else [cotangent[place] for place in places]
    k = next(c.shape[0] for c in given if c is not None)
    return [
        out.new_zeros((k, *out.shape)) if c is None else c.to(out.dtype) for c, out in zip(given, outputs, strict=True)
    ]


def _gradients(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], cotangents: Sequence[Tensor], *, unused: bool = True
) -> tuple[Tensor, ...]:
    """J^T c for k cotangents, all at once where the op's backward can be vectorised.

    `unused`: inputs on which no output depends are allowed, and have the gradient zero.
    """
    options: dict[str, Any] = {"retain_graph": True, "allow_unused": unused, "materialize_grads": unused}
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
        # Results that autograd holds constant do not move.
        alive = [i for i, out in enumerate(outputs) if out.requires_grad]
        if not alive:
            raise RuntimeError("the op records no backward")
        # Not zeros, at which some backward formulas (a logarithm of the cotangent) have no derivative.
        dummies = [torch.ones_like(outputs[i]).requires_grad_() for i in alive]
        pulled = torch.autograd.grad(
            [outputs[i] for i in alive], inputs, dummies, create_graph=True, materialize_grads=True
        )
        rows = [i for i, row in enumerate(pulled) if row.requires_grad]
        if not rows:
            raise RuntimeError("the op's backward is not differentiable")

    def push(tangents: Sequence[Tensor]) -> Any:
        # An unused dummy would mean a backward that autograd cannot see into.
        moved = _gradients([pulled[i] for i in rows], dummies, [tangents[i] for i in rows], unused=False)
        everything = [out.new_zeros((tangents[0].shape[0], *out.shape)) for out in outputs]
        for i, tangent in zip(alive, moved, strict=True):
            everything[i] = tangent.detach()
        return _spread(call, places, everything)

    def pull(cotangent: Any) -> tuple[Tensor, ...]:
        arrived = _gather(cotangent, places, outputs)
        return _gradients([outputs[i] for i in alive], inputs, [arrived[i] for i in alive])

    return push, pull


def _forward_mode(call: Call) -> tuple[Callable[..., Any], Callable[..., Any]]:
    inputs, run, places = _moving(call)

    def one(*tangents: Tensor) -> tuple[Tensor, ...]:
        return torch.func.jvp(run, tuple(inputs), tangents)[1]

    def dual(*tangents: Tensor) -> tuple[Tensor, ...]:
        with forward_ad.dual_level():
            outputs = run(*(forward_ad.make_dual(x, t) for x, t in zip(inputs, tangents, strict=True)))
            moved = [forward_ad.unpack_dual(out).tangent for out in outputs]
        if all(tangent is None for tangent in moved):
            raise RuntimeError("the op has no forward mode")
        return tuple(torch.zeros_like(out) if m is None else m for m, out in zip(moved, outputs, strict=True))

    dual(*(torch.ones_like(tensor) for tensor in inputs))

    def push(tangents: Sequence[Tensor]) -> Any:
        try:
            moved = torch.func.vmap(one)(*tangents)
        except _REFUSALS:
            moved = tuple(torch.stack(c) for c in zip(*(dual(*t) for t in zip(*tangents, strict=True)), strict=True))
        return _spread(call, places, moved)

    return push, _by_backward(call, "forward mode")


def _by_backward(call: Call, route: str) -> Callable[..., Any]:
    """J^T from a backward pass that is recorded anew, for an op whose backward has no derivative itself."""
    inputs, run, places = _moving(call)

    def pull(cotangent: Any) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            leaves = [tensor.detach().requires_grad_() for tensor in inputs]
            outputs = run(*leaves)
        if not any(out.requires_grad for out in outputs):
            raise DynstabError(
                f"{label(call.op)} has no backward, and {route} gives J alone",
                expected="an op with a backward for J^T",
                remedy="use what needs forward products only, or cut the network so that the op lies outside",
            )
        alive = [(o, c) for o, c in zip(outputs, _gather(cotangent, places, outputs), strict=True) if o.requires_grad]
        return _gradients([o for o, _ in alive], leaves, [c for _, c in alive])

    return pull


def _transposition(call: Call) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """J from the rows of J^T, for a backward that can be run but neither differentiated nor trusted to be f's."""
    places, outputs = _results(call)
    rows, columns = sum(out.numel() for out in outputs), sum(tensor.numel() for tensor in call.inputs)
    if rows * columns > _MOST_FORMED:
        raise RuntimeError(f"a Jacobian of {rows} x {columns} is not formed")
    pull = _by_backward(call, "transposition")
    unit = torch.eye(rows, dtype=outputs[0].dtype, device=outputs[0].device)
    cotangents = [
        part.reshape(rows, *out.shape)
        for part, out in zip(unit.split([out.numel() for out in outputs], dim=1), outputs, strict=True)
    ]
    try:
        pulled = pull(_spread(call, places, cotangents))
    except DynstabError as error:
        raise RuntimeError("there is no backward to transpose") from error
    matrix = torch.cat([part.reshape(rows, -1) for part in pulled], dim=1)

    def push(tangents: Sequence[Tensor]) -> Any:
        flat = torch.cat([tangent.reshape(tangent.shape[0], -1) for tangent in tangents], dim=1)
        moved = (flat.to(matrix.dtype) @ matrix.mT).split([out.numel() for out in outputs], dim=1)
        return _spread(call, places, [m.reshape(-1, *out.shape) for m, out in zip(moved, outputs, strict=True)])

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

    return push, _by_backward(call, "finite differences")
