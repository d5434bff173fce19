"""The table of linearisation rules: op -> rule, and what a rule sees and gives.

A rule is called once per recorded op with the op's primal values and answers with a
`Linearisation`: the derivative at that point as two functions, `push` for tangents and
`pull` for cotangents. Tangents carry a leading dimension k, (k, *shape). What a rule
computes from primal values (a derivative, a mask, an index map) it computes once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Slot = tuple[str] | tuple[str, int]
Push = Callable[[Sequence[Tensor]], Any]
Pull = Callable[[Any], Sequence[Tensor]]
Factor = float | Tensor


@dataclass(frozen=True, slots=True)
class Call:
    """One recorded op.

    Attributes:
        op: what was called. arguments: its values by the schema's names, defaults included.
        slots: the arguments that move, ("self",), or ("tensors", 2) inside a list.
        output: the primal result.
    """

    op: Any
    arguments: dict[str, Any]
    slots: tuple[Slot, ...]
    output: Any

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, name: str, default: Any = None) -> Any:
        value = self.arguments.get(name)
        return default if value is None else value

    def moves(self, name: str) -> bool:
        return any(slot[0] == name for slot in self.slots)

    def value(self, slot: Slot) -> Tensor:
        """The primal tensor in a slot."""
        value = self.arguments[slot[0]]
        return value[slot[1]] if len(slot) == 2 else value

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The primal tensors that move, in the order of `slots`."""
        return tuple(self.value(slot) for slot in self.slots)

    def rerun(self, inputs: Sequence[Tensor]) -> Any:
        """The op itself with other tensors in the moving slots."""
        arguments = dict(self.arguments)
        for slot, tensor in zip(self.slots, inputs, strict=True):
            if len(slot) == 1:
                arguments[slot[0]] = tensor
            else:
                items = list(arguments[slot[0]])
                items[slot[1]] = tensor
                arguments[slot[0]] = items
        return call_by_name(self.op, arguments)


@dataclass(frozen=True, slots=True)
class Linearisation:
    """The derivative of one op.

    Attributes:
        push: tangents in the order of the slots, (k, *shape) each -> the output's tangent, or a
            sequence of them for an op with several outputs.
        pull: the output's cotangent (a sequence, None for an unused output) -> cotangents in the
            order of the slots.
        route: how it was obtained, "rule" or the name of a fallback.
    """

    push: Push
    pull: Pull
    route: str = "rule"


@dataclass(frozen=True, slots=True)
class Diagonal:
    """The derivative of a pointwise op: one factor per slot, broadcastable to the output.

    Neighbouring diagonals are multiplied out by the tape, so that a chain of pointwise
    ops costs one multiplication per sweep.
    """

    factors: tuple[Factor, ...]


class UnsupportedForm(Exception):
    """A rule meets a form of its op that it does not cover: the op takes the fallback."""


Rule = Callable[[Call], Linearisation | Diagonal]

RULES: dict[str, Rule] = {}
POINTWISE: dict[str, frozenset[str] | None] = {}
FIRST_OUTPUT_ONLY: set[str] = set()

_CONSTANT = (
    "detach floor ceil round trunc sign heaviside floor_divide zeros_like ones_like full_like empty_like rand_like "
    "randn_like bernoulli new_zeros new_ones new_full new_empty new_empty_strided argmax argmin isnan isinf isfinite "
    "signbit bucketize searchsorted histc multinomial"
)
_MOVING = (
    "copy view _unsafe_view reshape squeeze unsqueeze flatten unflatten expand permute transpose t select slice "
    "split split_with_sizes chunk unbind cat stack slice_scatter select_scatter index_put constant_pad_nd"
)
#: Ops whose derivative is zero almost everywhere, or which read no more than a shape.
CONSTANT = frozenset(_CONSTANT.split())


#: Rules that put numbers elsewhere and compute nothing: they hold for complex numbers too. All other ops on
#: those take torch's own derivatives, whose conventions for them are settled, but which are lacking for some of these.
MOVES_NUMBERS = frozenset(_MOVING.split())


def rule(*names: str, first_output_only: bool = False) -> Callable[[Rule], Rule]:
    """Enter a rule under the names of aten ops, "mm bmm", or of one overload, "max.dim", separated by blanks.

    `first_output_only`: of several outputs the rule differentiates output 0, as if it were the only one;
    where another one is used, the op takes the fallback.
    """

    def enter(function: Rule) -> Rule:
        for name in " ".join(names).split():
            RULES[name] = function
            if first_output_only:
                FIRST_OUTPUT_ONLY.add(name)
        return function

    return enter


def pointwise(*names: str, only: Sequence[str] = (), first_output_only: bool = False) -> Callable[[Rule], Rule]:
    """Enter a rule that answers with a `Diagonal` (where no arguments but `only` move, if any are named)."""
    POINTWISE.update(dict.fromkeys(" ".join(names).split(), frozenset(only) or None))
    return rule(*names, first_output_only=first_output_only)


def is_pointwise(name: str | None, slots: Sequence[Slot]) -> bool:
    """Whether the rule of that name will answer with a `Diagonal`."""
    if name not in POINTWISE:
        return False
    only = POINTWISE[name]
    return only is None or all(slot[0] in only for slot in slots)


def op_name(op: Any) -> tuple[str, str]:
    """("add.Tensor", "add") for an aten op, ("", "") for anything else."""
    if not isinstance(op, torch._ops.OpOverload) or op.namespace != "aten":
        return "", ""
    base = op._schema.name.removeprefix("aten::")
    return f"{base}.{op._overloadname}", base


def rule_name(op: Any) -> str | None:
    """The key under which an op has a rule, the overload's own before the op's."""
    return next((name for name in op_name(op) if name in RULES), None)


def moves(value: Any) -> bool:
    """Whether a value can carry a tangent."""
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


def is_constant(op: Any) -> bool:
    return op_name(op)[1] in CONSTANT


def bind(op: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments by the schema's names, defaults included; positions as "0", "1" for a plain function."""
    if not isinstance(op, torch._ops.OpOverload):
        return {**{str(position): value for position, value in enumerate(args)}, **kwargs}
    bound = {}
    for position, argument in enumerate(op._schema.arguments):
        if position < len(args):
            bound[argument.name] = args[position]
        elif argument.name in kwargs:
            bound[argument.name] = kwargs[argument.name]
        else:
            bound[argument.name] = argument.default_value
    return bound


def call_by_name(op: Any, arguments: dict[str, Any]) -> Any:
    """The inverse of `bind`."""
    if not isinstance(op, torch._ops.OpOverload):
        positional = [value for name, value in arguments.items() if name.isdigit()]
        return op(*positional, **{name: value for name, value in arguments.items() if not name.isdigit()})
    positional = [arguments[a.name] for a in op._schema.arguments if not a.kwarg_only]
    named = {a.name: arguments[a.name] for a in op._schema.arguments if a.kwarg_only}
    return op(*positional, **named)
