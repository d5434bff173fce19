"""TorchScript as plain modules: its graphs are interpreted, operator by operator.

Tracing a ScriptModule records one opaque call and bakes its parameters in. Here each of
its submodules becomes an nn.Module of the same name that holds the same parameters and
walks the graph of its `forward`, so that hooks, gradients, new parameter values, and
branches that depend on data act as on any other module.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dynstab.loading.script_code import Block, Program, compile_block


class ScriptedBlock(nn.Module):
    """A module of a TorchScript file, with live parameters, whose graph is interpreted.

    Attributes:
        original_name: the class that was scripted, e.g. "Linear".
    """

    def __init__(self, source: Any, program: Program) -> None:
        super().__init__()
        self.original_name = source.qualified_name.rpartition(".")[2] or "module"
        self.scripted: dict[str, Any] = {}
        self.methods: dict[str, Block] = {}
        self.signature = ()
        if "forward" in source._method_names():
            arguments = source._get_method("forward").schema.arguments[1:]
            self.signature = tuple((each.name, each.has_default_value(), each.default_value) for each in arguments)
        for name in source._method_names():
            if name not in ("__setstate__", "__getstate__"):
                self.methods[name] = compile_block(source._get_method(name).graph, program)
        self.train(source.getattr("training") if source.hasattr("training") else True)

    def extra_repr(self) -> str:
        return f"original_name={self.original_name}"

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.run("forward", self._complete(args, kwargs))

    def _complete(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        if len(args) > len(self.signature):
            raise TypeError(f"forward takes {len(self.signature)} arguments, got {len(args)}")
        values = list(args)
        for name, optional, default in self.signature[len(args) :]:
            if name not in kwargs and not optional:
                raise TypeError(f"forward misses the argument {name!r}")
            values.append(kwargs.get(name, default))
        if unknown := set(kwargs) - {name for name, *_ in self.signature}:
            raise TypeError(f"forward has no argument {', '.join(sorted(unknown))}")
        return tuple(values)

    def run(self, method: str, arguments: tuple[Any, ...]) -> Any:
        """Interpret a method by name."""
        (result,) = self.methods[method].run((self, *arguments), {})
        return result

    def read(self, name: str) -> Any:
        """An attribute of the scripted module; lists of parameters follow the live ones."""
        if name in self.scripted:
            value = self.scripted[name]
            if isinstance(value, list) and value and all(isinstance(each, _Alias) for each in value):
                return [getattr(self, each.name) for each in value]
            return value
        return getattr(self, name)

    def write(self, name: str, value: Any) -> None:
        if name in self._buffers or name in self._parameters or name in self._modules or name == "training":
            setattr(self, name, value)
        else:
            self.scripted[name] = value


@dataclass(frozen=True)
class _Alias:
    """Stands for a parameter inside a list, as nn.LSTM keeps them."""

    name: str


_Identity = tuple[int, tuple[int, ...], tuple[int, ...]]


def _identity(tensor: Tensor) -> _Identity:
    """Equal for two views of the same entries."""
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride()


def mirror(source: Any, program: Program, ties: dict[_Identity, nn.Parameter] | None = None) -> ScriptedBlock:
    """The tree of plain modules of a scripted one, sharing its tensors; tied parameters stay tied.

    Raises:
        LoadError: its graphs hold something that cannot be interpreted.
    """
    ties = {} if ties is None else ties
    block = ScriptedBlock(source, program)
    tables: Any = torch._C
    parameters, buffers = dict(tables.ParameterDict(source).items()), dict(tables.BufferDict(source).items())
    children = dict(tables.ModuleDict(source).items())
    for name, value in parameters.items():
        fresh = nn.Parameter(value, requires_grad=value.requires_grad)
        block.register_parameter(name, ties.setdefault(_identity(value), fresh) if value.numel() else fresh)
    for name, value in buffers.items():
        block.register_buffer(name, value)
    for name, child in children.items():
        block.add_module(name, mirror(child, program, ties))
    own = {_identity(value): name for name, value in parameters.items()}
    for name in _attribute_names(source) - set(parameters) - set(buffers) - set(children) - {"training"}:
        block.scripted[name] = _attribute(source.getattr(name), own)
    return block


def _attribute(value: Any, own: dict[_Identity, str]) -> Any:
    if isinstance(value, list) and value and all(isinstance(each, Tensor) for each in value):
        names = [own.get(_identity(each)) for each in value]
        return [_Alias(name) for name in names if name] if all(names) else list(value)
    return copy.copy(value) if isinstance(value, list | dict) else value


def _attribute_names(source: Any) -> set[str]:
    """The attributes of a scripted module that its own methods read or write."""
    graphs = (source._get_method(name).graph for name in source._method_names())
    nodes = (node for graph in graphs for node in _all_nodes(graph))
    access = (node for node in nodes if node.kind() in ("prim::GetAttr", "prim::SetAttr"))
    return {node.s("name") for node in access if next(node.inputs()).type() == source._type()}


def _all_nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _all_nodes(inner)
