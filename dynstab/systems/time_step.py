"""A user's own step as a recurrence: forward(state), forward(input, state) or forward(state, input).

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
from torch import Tensor

from dynstab.core.errors import InputError, first_line
from dynstab.linear.driven import Tensors
from dynstab.systems.time_recurrence import HELD_STEPS, Bound, Recurrence
from dynstab.systems.time_state import StateForm, described, is_state, parts_of

_STATE_NAME = re.compile(r"^(h|hx|h0|state|states|hidden|hidden_states?|carry|memory|z|s)$")
FEATURES = 3  # dimensions of a batch of sequences with features
Pick = Callable[[Any], Any]
_PICKS: tuple[tuple[str, Pick], ...] = (
    ("what it returns", lambda out: out),
    ("the last that it returns", lambda out: out[-1] if isinstance(out, (tuple, list)) else None),
    ("the first that it returns", lambda out: out[0] if isinstance(out, (tuple, list)) else None),
)


def own_step_recurrence(bound: Bound, args: tuple[Any, ...], name: str) -> Recurrence:
    """A module whose forward is the step.

    Raises:
        InputError: nothing that it takes comes back in the same shape.
    """
    order = parameters_of(bound.module.forward)
    tried: list[str] = []
    if len(args) == 1:
        found = _autonomous(bound, args[0], name, tried) or _from_nothing(bound, args[0], name, tried)
    else:
        found = None
        for first in _orders(order):
            sequence, state = (args[1], args[0]) if first else (args[0], args[1])
            found = found or driven_recurrence(bound, sequence, state, order=order, name=name, tried=tried, first=first)
    if found is None:
        reasons = "; ".join(dict.fromkeys(tried[:2])) or "no argument comes back"
        raise InputError(
            f"{name} is no recurrence that can be stepped ({reasons})",
            expected="a recurrent layer or cell, a part that is called again on what it returned, or forward(state), "
            "forward(input, state) or forward(state, input) that gives the next state",
            remedy="give the step a method of its own, step(input, state); or --system depth reads it layer by layer",
        )
    return found


def parameters_of(function: Callable[..., Any]) -> list[str]:
    """The names of its arguments; none where Python cannot tell."""
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []


def state_first(names: list[str]) -> bool:
    """Whether the arguments are called so that the first is the state."""
    return bool(names) and bool(_STATE_NAME.match(names[0])) and not (len(names) > 1 and _STATE_NAME.match(names[1]))


def _orders(names: list[str]) -> tuple[bool, ...]:
    """Whether the state is the first argument: the likelier answer first."""
    return (True, False) if state_first(names) else (False, True)


def _autonomous(bound: Bound, state: Any, name: str, tried: list[str]) -> Recurrence | None:
    if not is_state(state):
        tried.append(f"{described(state)} is no state of floating-point or complex numbers")
        return None
    form = StateForm(bound, state)

    def call(tensors: Tensors, _inputs: Tensors) -> Any:
        return bound(form.tree(tensors))

    pick = _picked(call, form, (), tried)
    if pick is None:
        return None
    note = f"{name} is read as a map: its input {form} is the first state, what it returns the next, {HELD_STEPS} times"
    if form.rank >= FEATURES:
        note += "; if that is a sequence, give the step a method of its own, step(input, state)"
    return _recurrence(bound, name, _stepping(call, pick), form, (), HELD_STEPS, (note,))


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
        if is_state(state):
            found = driven_recurrence(bound, sequence, state, order=[], name=name, tried=tried)
            if found is not None:
                return found
    return None


def driven_recurrence(
    bound: Bound,
    sequence: Any,
    state: Any,
    *,
    order: list[str],
    name: str,
    tried: list[str],
    first: bool | None = None,
    timed: bool = False,
) -> Recurrence | None:
    """Driven step by step where one time of the sequence serves, else by all of it, held; None where neither does.

    Args:
        sequence: time first. state: the first one, made of tensors.
        order: the names of the arguments. first: whether the state is the first of them, None to find out.
        timed: the first dimension of the sequence is known to be time.
        tried: takes the reasons why it is no recurrence.
    """
    if not isinstance(sequence, Tensor) or not is_state(state):
        return None
    form, sequence = StateForm(bound, state), bound.cast(sequence)
    for state_is_first in _orders(order) if first is None else (first,):

        def call(tensors: Tensors, inputs: Tensors, state_is_first: bool = state_is_first) -> Any:
            given = form.tree(tensors)
            return bound(given, inputs[0]) if state_is_first else bound(inputs[0], given)

        for held in (False, True):
            drive = sequence[None] if held else sequence
            if not (held or timed or _is_sequence(sequence, form)):
                continue
            pick = _picked(call, form, (drive[0],), tried)
            if pick is None:
                continue
            note = (f"{name} is given one input, held for {HELD_STEPS} steps",) if held else ()
            length = HELD_STEPS if held else len(sequence)
            return _recurrence(bound, name, _stepping(call, pick), form, (drive,), length, note)
    return None


def _is_sequence(tensor: Tensor, form: StateForm) -> bool:
    """Time first, then what a state has: one dimension more than the state; tokens have no features and need none."""
    rank = form.rank + (1 if tensor.is_floating_point() or tensor.is_complex() else 0)
    return tensor.ndim >= max(rank, 1) and len(tensor) > 1


def _picked(call: Callable[[Tensors, Tensors], Any], form: StateForm, inputs: Tensors, tried: list[str]) -> Pick | None:
    """How the next state is found in what one call gives; None where it is not there."""
    try:
        with torch.no_grad():
            out = call(form.start, inputs)
    except Exception as error:  # this reading of the arguments is not the model's
        tried.append(f"{type(error).__name__}: {first_line(error)}"[:160])
        return None
    for _, pick in _PICKS:
        if form.fits(pick(out)):
            return pick
    if any(form.is_complex_in(pick(out)) for _, pick in _PICKS):
        tried.append("a real state comes back complex: give a complex first state")
    else:
        tried.append(f"of a state {form} it makes {described(out)}")
    return None


def _stepping(call: Callable[[Tensors, Tensors], Any], pick: Pick) -> Callable[[Tensors, Tensors], Tensors]:
    return lambda tensors, inputs: parts_of(pick(call(tensors, inputs)))


def _recurrence(
    bound: Bound, name: str, step: Any, form: StateForm, inputs: Tensors, length: int, notes: tuple[str, ...]
) -> Recurrence:
    return Recurrence(
        name=name,
        step=step,
        start=form.start,
        inputs=inputs,
        length=length,
        sample_dim=0 if form.batched else None,
        parameters=bound.parameters,
        notes=notes,
    )
