"""A recurrence inside a model, found by watching one run: which part takes again what it gave before?

Three things are looked for, in this order: one of torch's recurrent layers; a part that is called again
with a tensor that it returned (a cell in a loop, a tied block that is looped); a part that is called many times on
changing states with everything else the same, and ever closer to what it returns, as a solver of a fixed point
does (a deep equilibrium model).

References:
    Dehghani et al. (2019), Universal transformers; Bai, Kolter & Koltun (2019), Deep equilibrium models.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from dynstab.linear.driven import Tensors
from dynstab.systems.time_layers import layer_recurrence
from dynstab.systems.time_recurrence import Bound, Recurrence

_FEWEST_TRIALS = 3
_FOLLOWED = 200
_SOLVED = 0.1


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of a part: its arguments as leaves, and the tensors that it returned."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    leaves: list[Any]
    spec: pytree.TreeSpec
    outputs: list[Tensor]


def inner_recurrence(bound: Bound, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Recurrence | None:
    """The recurrence of some part of the model; None where no part is one.

    Raises:
        Exception: whatever forward raises on these arguments.
    """
    calls = _watch(bound, args, kwargs)
    layer = _layer(bound, calls)
    if layer is not None:
        return layer
    parts = [(path, found) for path, found in calls.items() if len(found) > 1]
    for path, found in sorted(parts, key=lambda part: (part[0].count("."), -len(part[1]))):
        recurrence = _chained(bound, path, found) or _solved(bound, path, found)
        if recurrence is not None:
            others = [other for other, calls in parts if _apart(other, path) and _links(calls)]
            return _beside(recurrence, f"the recurrence is {path}", others)
    return None


def _apart(path: str, other: str) -> bool:
    """Neither is the other or a part of it."""
    return not f"{path}.".startswith(f"{other}.") and not f"{other}.".startswith(f"{path}.")


def _beside(recurrence: Recurrence, words: str, others: list[str]) -> Recurrence:
    """With a note on other recurrences of the model."""
    if not others:
        return recurrence
    return replace(recurrence, notes=(*recurrence.notes, f"{words}; not part of it: {', '.join(others)}"))


def _watch(bound: Bound, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, list[Call]]:
    """Every call of every submodule in one run."""
    calls: dict[str, list[Call]] = {}
    with ExitStack() as stack, torch.no_grad():
        for path, module in bound.module.named_modules():

            def note(_module: nn.Module, args: Any, kwargs: Any, output: Any, path: str = path) -> None:
                leaves, spec = pytree.tree_flatten((args, kwargs))
                outputs = [leaf for leaf in pytree.tree_leaves(_tensors_of(output)) if isinstance(leaf, Tensor)]
                call = Call(args=args, kwargs=kwargs, leaves=leaves, spec=spec, outputs=outputs)
                calls.setdefault(path, []).append(call)

            if path and not isinstance(module, torch.jit.ScriptModule):
                stack.callback(module.register_forward_hook(note, with_kwargs=True).remove)
        bound(*args, **kwargs)
    return calls


def _tensors_of(output: Any) -> Any:
    """Outputs of transformers are dictionaries in disguise."""
    return dict(output) if hasattr(output, "to_tuple") else output


def _layer(bound: Bound, calls: dict[str, list[Call]]) -> Recurrence | None:
    """The largest of torch's recurrent layers, driven by what reaches it in the model."""
    found = [(path, made[0]) for path, made in calls.items() if isinstance(bound.part(path).module, nn.RNNBase)]
    if not found:
        return None
    path, call = max(found, key=lambda each: sum(p.numel() for p in bound.part(each[0]).module.parameters()))
    recurrence = layer_recurrence(bound.part(path), call.args, dict(call.kwargs), path)
    cells = (nn.RNNBase, nn.RNNCellBase)
    others = [other for other in calls if other != path and isinstance(bound.part(other).module, cells)]
    return _beside(recurrence, f"the recurrence is {path}, the largest layer", others)


def _chained(bound: Bound, path: str, calls: Sequence[Call]) -> Recurrence | None:
    """A part whose next call takes tensors that the last one returned."""
    links = _links(calls)
    if not links or not _alike(calls):
        return None
    positions, numbers = zip(*links, strict=True)
    context = _context(calls, positions)
    part, first = bound.part(path), calls[0]
    start = tuple(part.cast(first.leaves[position]) for position in positions)
    recurrence = Recurrence(
        name=path,
        step=_step(part, first, positions, tuple(context), numbers),
        start=start,
        inputs=tuple(torch.stack([part.cast(tensor) for tensor in sequence]) for sequence in context.values()),
        length=len(calls),
        sample_dim=_sample_dim(start),
        expected={t + 1: tuple(part.cast(call.outputs[i]) for i in numbers) for t, call in enumerate(calls)},
        parameters=part.parameters,
        notes=(f"{path} is called {len(calls)} times on what it returned: one call is one step",),
    )
    if recurrence.held and len(calls) < _FOLLOWED:
        return replace(recurrence, after=_FOLLOWED - len(calls))
    return recurrence


def _solved(bound: Bound, path: str, calls: Sequence[Call]) -> Recurrence | None:
    """A part that a solver calls at one point after another, all else the same: a map with a fixed point."""
    last = calls[-1]
    if len(calls) < _FEWEST_TRIALS or not _alike(calls) or len(last.outputs) != 1 or not last.leaves:
        return None
    varying = [i for i, leaf in enumerate(last.leaves) if not all(_same(leaf, call.leaves[i]) for call in calls)]
    if len(varying) != 1 or not _like(last.leaves[varying[0]], last.outputs[0]):
        return None
    (position,) = varying
    first, final = (_residual(call, position) for call in (calls[0], last))
    if not final < min(_SOLVED, first / 2):
        return None
    context = _context(calls, (position,))
    part, start = bound.part(path), (bound.cast(last.outputs[0]),)
    return Recurrence(
        name=path,
        step=_step(part, last, (position,), tuple(context), (0,)),
        start=start,
        inputs=tuple(part.cast(sequence[-1])[None] for sequence in context.values()),
        length=_FOLLOWED,
        sample_dim=_sample_dim(start),
        parameters=part.parameters,
        notes=(
            f"{path} is called {len(calls)} times on different states, all else the same: the iteration "
            "z -> f(z) from where the model's solver stopped",
        ),
    )


def _residual(call: Call, position: int) -> float:
    """||f(z) - z|| / ||f(z)||, which a solver makes small."""
    state, image = call.leaves[position].double(), call.outputs[0].double()
    return float((image - state).norm() / image.norm().clamp_min(torch.finfo(torch.float64).tiny))


def _links(calls: Sequence[Call]) -> list[tuple[int, int]]:
    """(argument, output): the argument of every call is the output of the one before it.

    The same tensor where there is one; equal values otherwise (a state that was reshaped on its way).
    """
    first = calls[0]
    alike = [
        (i, j)
        for i, leaf in enumerate(first.leaves)
        for j, output in enumerate(first.outputs)
        if _like(leaf, output) and all(i < len(call.leaves) and j < len(call.outputs) for call in calls)
    ]
    pairs = list(zip(calls, calls[1:], strict=False))
    handed = [(i, j) for i, j in alike if all(b.leaves[i] is a.outputs[j] for a, b in pairs)]
    equal = handed or [(i, j) for i, j in alike if all(_same(b.leaves[i], a.outputs[j]) for a, b in pairs)]
    # One tensor may be returned twice (an output that is the hidden state): it is one part of the state.
    return list(dict(reversed(equal)).items())[::-1]


def _alike(calls: Sequence[Call]) -> bool:
    """All calls have the same structure, shapes and plain arguments: one step serves for all."""
    first = calls[0]
    for call in calls[1:]:
        if call.spec != first.spec:
            return False
        for a, b in zip(first.leaves, call.leaves, strict=True):
            if isinstance(a, Tensor) != isinstance(b, Tensor):
                return False
            if isinstance(a, Tensor) and (a.shape != b.shape or a.dtype != b.dtype):
                return False
            if not isinstance(a, Tensor) and a is not b and a != b:
                return False
    return True


def _context(calls: Sequence[Call], state: tuple[int, ...]) -> dict[int, list[Tensor]]:
    """The other tensors among the arguments, by position, over time."""
    others = [i for i, leaf in enumerate(calls[0].leaves) if isinstance(leaf, Tensor) and i not in state]
    return {i: [call.leaves[i] for call in calls] for i in others}


def _step(part: Bound, call: Call, state: tuple[int, ...], context: tuple[int, ...], outputs: Sequence[int]) -> Any:
    leaves, spec = list(call.leaves), call.spec

    def step(tensors: Tensors, inputs: Tensors) -> Tensors:
        filled = list(leaves)
        for position, tensor in (*zip(state, tensors, strict=True), *zip(context, inputs, strict=True)):
            filled[position] = tensor
        args, kwargs = pytree.tree_unflatten(filled, spec)
        result = pytree.tree_leaves(_tensors_of(part(*args, **kwargs)))
        tensors = tuple(leaf for leaf in result if isinstance(leaf, Tensor))
        return tuple(tensors[number] for number in outputs)

    return step


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a is b or (a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b))
    return a is b or (not isinstance(a, Tensor) and not isinstance(b, Tensor) and a == b)


def _like(a: Any, b: Any) -> bool:
    both = isinstance(a, Tensor) and isinstance(b, Tensor)
    return both and a.shape == b.shape and a.dtype == b.dtype and a.is_floating_point()


def _sample_dim(state: Tensors) -> int | None:
    return 0 if all(tensor.ndim > 1 for tensor in state) else None
