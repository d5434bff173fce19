"""torch's recurrent layers and cells as recurrences.

A stacked layer is one recurrence of all its layers together: h is (layers, batch, hidden) and an LSTM's state
(h, c). A bidirectional one is no recurrence in time as a whole, because its upper layers read both directions of
the lower ones: each layer and direction is a recurrence of its own, driven by what the layer below gave, and
all of them advance together, each from its own end of the sequence. The Jacobian is then block diagonal, and
the exponents are those of all parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from dynstab.core.errors import InputError, first_line
from dynstab.linear.driven import Tensors
from dynstab.systems.time_recurrence import HELD_STEPS, Bound, Recurrence

GATES = {"LSTM": ("input gate", "forget gate", "output gate"), "GRU": ("reset gate", "update gate")}
_LAYER_ARGUMENTS, _CELL_ARGUMENTS = ("input", "hx"), ("input", "hx")


def layer_recurrence(bound: Bound, args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> Recurrence:
    """nn.RNN, nn.LSTM or nn.GRU with the sequence that it is given.

    Raises:
        InputError: no sequence of the layer's input size, a packed one, or one without a step.
    """
    layer = bound.module
    assert isinstance(layer, nn.RNNBase)
    sequence, state = _arguments(bound, args, kwargs)
    _check_sequence(sequence, layer)
    batched = sequence.ndim == 3
    if not batched:
        sequence = sequence[:, None]
    elif layer.batch_first:
        sequence = sequence.transpose(0, 1)
    state = tuple(tensor if batched else tensor[:, None] for tensor in state) or _zeros(layer, sequence)
    final = _accepted(lambda: bound(_outside(sequence, layer), _structured(state))[1], (sequence, *state), bound, name)
    if layer.bidirectional:
        return _bidirectional(bound, layer, sequence, state, final, name)

    def step(state: Tensors, inputs: Tensors) -> Tensors:
        return _state_of(bound(_outside(inputs[0][None], layer), _structured(state))[1])

    return Recurrence(
        name=name,
        step=step,
        start=state,
        inputs=(sequence,),
        length=len(sequence),
        sample_dim=1,
        expected={len(sequence): final},
        gates=_gate_names(
            layer.mode, [f" of layer {i}" if layer.num_layers > 1 else "" for i in range(layer.num_layers)]
        ),
        parameters=bound.parameters,
    )


def cell_recurrence(bound: Bound, args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> Recurrence:
    """nn.RNNCell, nn.LSTMCell or nn.GRUCell: (T, batch, features) drives it, (batch, features) is held."""
    cell = bound.module
    assert isinstance(cell, nn.RNNCellBase)
    given, state = _arguments(bound, args, kwargs)
    _check_sequence(given, cell)
    sequence = given if given.ndim == 3 else given[None]
    batch = sequence.shape[1] if sequence.ndim == 3 else None
    if not state:
        shape = (cell.hidden_size,) if batch is None else (batch, cell.hidden_size)
        zeros = sequence.new_zeros(shape)
        state = (zeros, zeros.clone()) if isinstance(cell, nn.LSTMCell) else (zeros,)

    def step(state: Tensors, inputs: Tensors) -> Tensors:
        return _state_of(bound(inputs[0], _structured(state)))

    _accepted(lambda: step(state, (sequence[0],)), (sequence[0], *state), bound, name)
    held = f"the cell is given one input, held for {HELD_STEPS} steps; give (T, batch, features) to drive it"
    return Recurrence(
        name=name,
        step=step,
        start=state,
        inputs=(sequence,),
        length=len(sequence) if given.ndim == 3 else HELD_STEPS,
        sample_dim=None if batch is None else 0,
        gates=_gate_names(type(cell).__name__.removesuffix("Cell"), [""]),
        parameters=bound.parameters,
        notes=() if given.ndim == 3 else (held,),
    )


def _arguments(bound: Bound, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensors]:
    named = dict(zip(("input", "hx"), args, strict=False)) | kwargs
    sequence, state = named.get("input"), named.get("hx")
    if isinstance(sequence, PackedSequence):
        raise InputError(
            "a packed sequence drives the recurrence",
            expected="sequences of one length, as a tensor",
            remedy="analyse the sequences of equal length together, or one by one, without packing",
        )
    if not isinstance(sequence, Tensor):
        raise InputError("a recurrence was given no input", expected="a sequence of inputs", remedy=_REMEDY)
    tensors = () if state is None else (state,) if isinstance(state, Tensor) else tuple(state)
    return bound.cast(sequence), tuple(bound.cast(tensor) for tensor in tensors)


_REMEDY = "give one, e.g. --input randn:100,8,16 for 100 steps of 8 sequences with 16 features"


def _check_sequence(sequence: Tensor, layer: nn.RNNBase | nn.RNNCellBase) -> None:
    shape = tuple(sequence.shape)
    cell = isinstance(layer, nn.RNNCellBase)
    order = "batch, T" if not cell and layer.batch_first else "T, batch"
    if sequence.ndim not in ((1, 2, 3) if cell else (2, 3)) or shape[-1] != layer.input_size:
        raise InputError(f"an input of shape {shape}", expected=f"({order}, {layer.input_size})", remedy=_REMEDY)
    if not sequence.numel():
        raise InputError(f"a sequence of shape {shape} without a step", expected="at least one step")


def _accepted(call: Callable[[], Any], given: Tensors, bound: Bound, name: str) -> Tensors:
    """The state that a call gives; what torch has against the input and the state it was given, in a sentence."""
    try:
        with torch.no_grad():
            return _state_of(call())
    except Exception as error:
        words = ", ".join(f"{tuple(each.shape)} {str(each.dtype).removeprefix('torch.')}" for each in given)
        raise InputError(
            f"{name} rejects an input and a state, {words} ({type(error).__name__}: {first_line(error)})",
            expected=f"{str(bound.float_dtype).removeprefix('torch.')}, as its weights are, and a state of its size",
            remedy="give these, or none for the state: it is zero then",
        ) from error


def _outside(sequence: Tensor, layer: nn.RNNBase) -> Tensor:
    """Time first -> as the layer wants it."""
    return sequence.transpose(0, 1) if layer.batch_first else sequence


def _zeros(layer: nn.RNNBase, sequence: Tensor) -> Tensors:
    directions = 2 if layer.bidirectional else 1
    shape = (directions * layer.num_layers, sequence.shape[1])
    hidden = sequence.new_zeros(*shape, layer.proj_size or layer.hidden_size)
    return (hidden, sequence.new_zeros(*shape, layer.hidden_size)) if layer.mode == "LSTM" else (hidden,)


def _structured(state: Tensors) -> Any:
    """As torch wants it: the tensor of one part, the tuple of several."""
    (first, *others) = state
    return (first, *others) if others else first


def _state_of(result: Any) -> Tensors:
    return (result,) if isinstance(result, Tensor) else tuple(result)


def _gate_names(mode: str, places: list[str]) -> tuple[str, ...]:
    return tuple(gate + place for place in places for gate in GATES.get(mode, ()))


def _bidirectional(
    bound: Bound, layer: nn.RNNBase, sequence: Tensor, state: Tensors, final: Tensors, name: str
) -> Recurrence:
    """All layers and directions side by side; `single` is one of them as a layer of its own."""
    parts = [(level, way) for level in range(layer.num_layers) for way in (0, 1)]
    singles = [_single(layer, bound, level, way) for level, way in parts]
    drives: list[Tensor] = []
    below = sequence
    for level in range(layer.num_layers):
        outputs = []
        for way in (0, 1):
            index = 2 * level + way
            drive = below.flip(0) if way else below
            drives.append(drive)
            with torch.no_grad():
                output, _ = singles[index](drive, _structured(tuple(tensor[index][None] for tensor in state)))
            outputs.append(output.flip(0) if way else output)
        below = torch.cat(outputs, dim=2)
    width = len(state)

    def step(state: Tensors, inputs: Tensors) -> Tensors:
        after: list[Tensor] = []
        for index, single in enumerate(singles):
            own = tuple(tensor[None] for tensor in state[index * width : (index + 1) * width])
            after += [tensor[0] for tensor in _state_of(single(inputs[index][None], _structured(own))[1])]
        return tuple(after)

    ways = ("forward", "backward")
    return Recurrence(
        name=name,
        step=step,
        start=tuple(tensor[i] for i in range(len(parts)) for tensor in state),
        inputs=tuple(drives),
        length=len(sequence),
        expected={len(sequence): tuple(tensor[i] for i in range(len(parts)) for tensor in final)},
        gates=_gate_names(layer.mode, [f", layer {level} {ways[way]}" for level, way in parts]),
        parameters=bound.parameters,
        notes=(
            "bidirectional: each layer and direction is a recurrence of its own, driven by the layer below, and "
            "reads from its own end of the sequence",
        ),
    )


def _single(layer: nn.RNNBase, bound: Bound, level: int, way: int) -> Bound:
    """One layer and direction as a layer of its own, with the same weights."""
    outputs = 2 * (layer.proj_size or layer.hidden_size)
    options: dict[str, Any] = {"proj_size": layer.proj_size} if layer.mode == "LSTM" else {}
    if isinstance(layer, nn.RNN):
        options["nonlinearity"] = layer.nonlinearity
    kind = {"LSTM": nn.LSTM, "GRU": nn.GRU}.get(layer.mode, nn.RNN)
    size = outputs if level else layer.input_size
    alone = kind(size, layer.hidden_size, bias=layer.bias, device="meta", **options)
    single = Bound(alone, None, None)
    suffix = f"_l{level}" + ("_reverse" if way else "")
    single.values = {key: bound.values[key.removesuffix("_l0") + suffix] for key in single.values}
    return single
