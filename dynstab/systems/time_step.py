"""A user's own step as a recurrence: forward(state), forward(input, state), forward(state, input), or .step.

Which argument is the state is not guessed from shapes alone: the one is the state whose like comes back. Where
both fit, a parameter called h, hx, state, hidden, carry, z or memory is the state, else the second one, as in torch's
cells. What is not the state is a sequence with time first, or one input that is held.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from dynstab.core.errors import InputError, first_line
from dynstab.linear.driven import Tensors
from dynstab.systems.time_recurrence import HELD_STEPS, Bound, Recurrence

_STATE_NAME = re.compile(r"^(h|hx|h0|state|states|hidden|hidden_states?|carry|memory|z|s)$")
Pick = Callable[[Any], Any]
_PICKS: tuple[tuple[str, Pick], ...] = (
    ("what it returns", lambda out: out),
    ("the last that it returns", lambda out: out[-1] if isinstance(out, (tuple, list)) else None),
    ("the first that it returns", lambda out: out[0] if isinstance(out, (tuple, list)) else None),
)


class Stepper(nn.Module):
    """The `step` method of a module as its forward."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any) -> Any:
        return self.inner.step(*args)  # type: ignore[operator]


def has_step(module: nn.Module) -> bool:
    """Whether a module says itself how it steps, as state-space layers do for decoding."""
    return callable(getattr(module, "step", None))


def has_forward(module: nn.Module) -> bool:
    """Whether a module can be called."""
    return getattr(module.forward, "__name__", "") != "_forward_unimplemented"


def stepper_recurrence(bound: Bound, args: tuple[Any, ...], name: str) -> Recurrence:
    """A module with `step(input, state)` or `step(state, input)`; its forward takes (batch, T, features).

    The first state is the second argument, or what `default_state(batch)` or `initial_state(batch)` gives.

    Raises:
        InputError: there is no first state, or the step does not give its like back.
    """
    inner = bound.module
    stepper = Bound(Stepper(inner), bound.dtype, bound.device)
    if not args:
        raise InputError(f"{name}.step was given no input", expected="a sequence (batch, T, features)")
    sequence = bound.cast(args[0])
    if sequence.ndim == 3 and getattr(inner, "batch_first", True):
        sequence = sequence.transpose(0, 1)
    state = args[1] if len(args) > 1 else _first_state(inner, sequence.shape[1])
    if state is None:
        raise InputError(
            f"{name}.step was given no state", expected="(sequence, state)", remedy="or a method default_state(batch)"
        )
    found = _driven(stepper, sequence, state, order=_parameters(inner.step), name=name)  # type: ignore[arg-type]
    if found is None:
        raise InputError(f"{name}.step does not give a state like the one it takes back", expected="(output, state)")
    return found


def own_step_recurrence(bound: Bound, args: tuple[Any, ...], name: str) -> Recurrence:
    """A module whose forward is the step.

    Raises:
        InputError: nothing that it takes comes back in the same shape.
    """
    order = _parameters(bound.module.forward)
    tried: list[str] = []
    if len(args) == 1:
        found = _autonomous(bound, args[0], name, tried) or _from_nothing(bound, args[0], name, tried)
    else:
        found = None
        for first in _orders(order):
            sequence, state = (args[1], args[0]) if first else (args[0], args[1])
            found = found or _driven(bound, sequence, state, order=order, name=name, tried=tried, state_first=first)
    if found is None:
        reasons = "; ".join(dict.fromkeys(tried[:2])) or "no argument comes back"
        raise InputError(
            f"{name} is no recurrence that can be stepped ({reasons})",
            expected="a recurrent layer or cell, a part that is called again on what it returned, or forward(state), "
            "forward(input, state) or forward(state, input) that gives the next state",
            remedy="give the step a method of its own, step(input, state); or --system depth reads it layer by layer",
        )
    return found


def _first_state(inner: nn.Module, batch: int) -> Any:
    for method in ("default_state", "initial_state"):
        if callable(getattr(inner, method, None)):
            return getattr(inner, method)(batch)
    return None


def _parameters(function: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []


def _orders(names: list[str]) -> tuple[bool, ...]:
    """Whether the state is the first argument: the likelier answer first."""
    named_first = (
        bool(names) and bool(_STATE_NAME.match(names[0])) and not (len(names) > 1 and _STATE_NAME.match(names[1]))
    )
    return (True, False) if named_first else (False, True)


def _autonomous(bound: Bound, state: Any, name: str, tried: list[str]) -> Recurrence | None:
    start, spec = _flat(bound, state)

    def call(tensors: Tensors, _inputs: Tensors) -> Any:
        return bound(pytree.tree_unflatten(list(tensors), spec))

    pick = _picked(call, start, (), spec, tried)
    if pick is None:
        return None
    note = f"{name} is a map from states to states, followed for {HELD_STEPS} steps"
    return _recurrence(bound, name, _stepping(call, pick), start, (), HELD_STEPS, (note,))


def _from_nothing(bound: Bound, sequence: Any, name: str, tried: list[str]) -> Recurrence | None:
    """forward(input, state=None): the first state is what one call gives."""
    if not isinstance(sequence, Tensor) or sequence.ndim < 2:
        return None
    try:
        with torch.no_grad():
            out = bound(bound.cast(sequence)[0])
    except Exception as error:  # a forward that cannot take one time is no such step
        tried.append(f"one time alone: {type(error).__name__}: {first_line(error)}")
        return None
    for _, pick in _PICKS:
        state = pick(out)
        leaves = pytree.tree_leaves(state)
        if state is not None and leaves and all(_floating(leaf) for leaf in leaves):
            found = _driven(bound, sequence, state, order=[], name=name, tried=tried)
            if found is not None:
                return found
    return None


def _driven(
    bound: Bound,
    sequence: Any,
    state: Any,
    *,
    order: list[str],
    name: str,
    tried: list[str] | None = None,
    state_first: bool | None = None,
) -> Recurrence | None:
    """Driven step by step where one time of the sequence serves, else by all of it, held."""
    tried = [] if tried is None else tried
    if not isinstance(sequence, Tensor) or not all(_floating(leaf) for leaf in pytree.tree_leaves(state)):
        return None
    start, spec = _flat(bound, state)
    sequence = bound.cast(sequence)
    for first in _orders(order) if state_first is None else (state_first,):

        def call(tensors: Tensors, inputs: Tensors, first: bool = first) -> Any:
            given = pytree.tree_unflatten(list(tensors), spec)
            return bound(given, inputs[0]) if first else bound(inputs[0], given)

        for held in (False, True):
            drive = sequence[None] if held else sequence
            if not held and not _is_sequence(sequence, start):
                continue
            pick = _picked(call, start, (drive[0],), spec, tried)
            if pick is None:
                continue
            note = (f"{name} is given one input, held for {HELD_STEPS} steps",) if held else ()
            length = HELD_STEPS if held else len(sequence)
            return _recurrence(bound, name, _stepping(call, pick), start, (drive,), length, note)
    return None


def _is_sequence(tensor: Tensor, state: Tensors) -> bool:
    """Time first, then what a state has: one dimension more than the state; tokens have no features and need none."""
    rank = max(part.ndim for part in state) + (1 if tensor.is_floating_point() else 0)
    return tensor.ndim >= max(rank, 1) and len(tensor) > 1


def _flat(bound: Bound, state: Any) -> tuple[Tensors, pytree.TreeSpec]:
    leaves, spec = pytree.tree_flatten(state)
    floats = [bound.cast(leaf if isinstance(leaf, Tensor) else torch.as_tensor(leaf)) for leaf in leaves]
    # Of a drive and a state both in the model's dtype: a float64 state would be refused by float32 weights.
    return tuple(tensor.detach() for tensor in floats), spec


def _picked(
    call: Callable[[Tensors, Tensors], Any], start: Tensors, inputs: Tensors, spec: pytree.TreeSpec, tried: list[str]
) -> Pick | None:
    """How the next state is found in what one call gives; None where it is not there."""
    try:
        with torch.no_grad():
            out = call(start, inputs)
    except Exception as error:  # this reading of the arguments is not the model's
        tried.append(f"{type(error).__name__}: {first_line(error)}"[:160])
        return None
    for _, pick in _PICKS:
        leaves = pytree.tree_leaves(pick(out))
        if len(leaves) == len(start) and all(
            isinstance(leaf, Tensor) and leaf.shape == tensor.shape and leaf.dtype == tensor.dtype
            for leaf, tensor in zip(leaves, start, strict=True)
        ):
            return pick
    return None


def _stepping(call: Callable[[Tensors, Tensors], Any], pick: Pick) -> Callable[[Tensors, Tensors], Tensors]:
    return lambda tensors, inputs: tuple(pytree.tree_leaves(pick(call(tensors, inputs))))


def _recurrence(
    bound: Bound, name: str, step: Any, start: Tensors, inputs: Tensors, length: int, notes: tuple[str, ...]
) -> Recurrence:
    return Recurrence(
        name=name,
        step=step,
        start=start,
        inputs=inputs,
        length=length,
        sample_dim=0 if all(tensor.ndim > 1 for tensor in start) else None,
        parameters=bound.parameters,
        notes=notes,
    )


def _floating(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()
