"""Models and inputs that cannot be analysed as they are: one sentence each, before anything is run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from dynstab.core.errors import InputError
from dynstab.systems.time_stepper import has_forward, has_step

Named = tuple[str, object]
# Layers that round their inputs to integers; weights alone in integers, made floats in forward, are no obstacle.
_QUANTISED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torchao.quantization.linear_activation")


def named_inputs(args: Sequence[object], kwargs: Mapping[str, object]) -> list[Named]:
    """The arguments of a forward pass, named for people."""
    return [
        *((f"input {number}", value) for number, value in enumerate(args, 1)),
        *((f"the input {name!r}", value) for name, value in kwargs.items()),
    ]


def refuse_tensors(named: Iterable[Named]) -> None:
    """Inputs without a plain array of numbers behind them.

    Raises:
        InputError: one is nested, sparse, quantised or on the meta device.
    """
    for name, tensor in _tensors(named):
        form, remedy = _form(tensor)
        if form:
            raise InputError(f"{name} is {form}", expected="a dense tensor with values", remedy=remedy)


def refuse_module(module: nn.Module, source: str) -> None:
    """Models that compute nothing, or whose weights are not there or are no plain arrays of numbers.

    Raises:
        InputError: it has no forward; a layer is quantised; a parameter or buffer is uninitialised, nested,
            sparse, quantised or on the meta device.
    """
    _refuse_layers(module, source)
    held = [*module.named_parameters(), *module.named_buffers()]
    if any(is_lazy(tensor) for _, tensor in held):
        raise InputError(
            f"{source} has lazy layers whose sizes are not known yet",
            expected="a model that has seen an input",
            remedy="call it once on real data first, before saving it if it is saved",
        )
    for name, tensor in held:
        form, remedy = _form(tensor)
        if tensor.device.type == "meta":
            remedy = "load the weights into it (to_empty, then load_state_dict), or build it without the meta device"
        if form:
            raise InputError(f"{name} of {source} is {form}", expected="weights that are dense tensors", remedy=remedy)


def _refuse_layers(module: nn.Module, source: str) -> None:
    if not has_forward(module) and not has_step(module):
        raise InputError(
            f"{source} has no forward",
            expected="a module that can be called on tensors, or stepped: step(input, state)",
            remedy="give the part of it that computes, from a factory: file.py:factory",
        )
    for name, layer in module.named_modules():
        if type(layer).__module__.startswith(_QUANTISED):
            raise InputError(
                f"{name or source} is a quantised layer ({type(layer).__name__}), whose rounding has no derivative",
                expected="layers that compute in floating point",
                remedy="analyse the model as it was before quantisation",
            )


def refuse_devices(module: nn.Module, named: Iterable[Named]) -> None:
    """Inputs that are elsewhere than the model, where the analysis moves neither.

    Raises:
        InputError: their devices differ.
    """
    homes = {str(parameter.device) for parameter in module.parameters()}
    for name, tensor in _tensors(named):
        # A number may stay on the CPU: torch takes it there from anywhere.
        if tensor.ndim and homes and str(tensor.device) not in homes:
            raise InputError(
                f"{name} is on {tensor.device}, the model on {', '.join(sorted(homes))}",
                expected="both on one device",
                remedy="move one of them, or name a --device for both",
            )


def _tensors(named: Iterable[Named]) -> Iterator[tuple[str, Tensor]]:
    for name, value in named:
        for leaf in tree_leaves(value):
            if isinstance(leaf, Tensor):
                yield name, leaf


def _form(tensor: Tensor) -> tuple[str, str]:
    """What a tensor is other than a dense array of numbers, and the way to one; both empty where it is one."""
    if tensor.is_nested:
        return "a nested tensor", "pad it, torch.nested.to_padded_tensor(x, 0.0), with a mask if the model takes one"
    if tensor.layout is not torch.strided:
        layout = str(tensor.layout).removeprefix("torch.")
        return f"a sparse tensor ({layout})", "make it dense with .to_dense()"
    if tensor.is_quantized:
        return f"quantised ({str(tensor.dtype).removeprefix('torch.')})", "dequantise it with .dequantize()"
    if tensor.device.type == "meta":
        return "on the meta device, where tensors have a shape and no values", "make it on the CPU or a GPU"
    return "", ""
