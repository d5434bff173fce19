"""The code of TorchScript as Python operations: a graph is compiled once and run many times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from dynstab.core.errors import LoadError
from dynstab.loading.script_ops import LANGUAGE, SCALAR, UNSAFE

Values = dict[str, Any]


@dataclass(frozen=True)
class Node:
    """One operation: names of the values it reads and writes, `call` computes the outputs from the inputs."""

    call: Callable[[Values], tuple[Any, ...]]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """Straight-line code: parameters, operations, results."""

    parameters: tuple[str, ...]
    nodes: tuple[Node, ...]
    results: tuple[str, ...]

    def run(self, arguments: tuple[Any, ...], outer: Values) -> tuple[Any, ...]:
        values = dict(outer)
        values.update(zip(self.parameters, arguments, strict=True))
        for node in self.nodes:
            values.update(zip(node.outputs, node.call(values), strict=True))
        return tuple(values[name] for name in self.results)


@dataclass
class Program:
    """The compiled graphs that all modules of one file share."""

    unit: Any
    functions: dict[str, Block] = field(default_factory=dict)

    def __deepcopy__(self, memo: dict[int, Any]) -> Program:
        return self  # immutable code: copies of a module share it

    def function(self, name: str) -> Block:
        if name not in self.functions:
            found = self.unit.find_function(name)
            if found is None:
                raise LoadError(f"the TorchScript function {name} is not in the file")
            self.functions[name] = compile_block(found.graph, self)
        return self.functions[name]


def compile_block(block: Any, program: Program) -> Block:
    """Python operations for a graph or a block of one.

    Raises:
        LoadError: an operation reads or writes files, or is none that Python can reach.
    """
    returns = block.return_node() if hasattr(block, "return_node") else block.returnNode()
    return Block(
        parameters=tuple(each.debugName() for each in block.inputs()),
        nodes=tuple(_compile_node(node, program) for node in block.nodes()),
        results=tuple(each.debugName() for each in returns.inputs()),
    )


def _compile_node(node: Any, program: Program) -> Node:
    inputs = tuple(each.debugName() for each in node.inputs())
    outputs = tuple(each.debugName() for each in node.outputs())
    maker = _STRUCTURE.get(node.kind())
    call = maker(node, inputs, program) if maker else _single(_operator(node), inputs, len(outputs))
    return Node(call=call, outputs=outputs)


def _single(function: Callable[..., Any], inputs: tuple[str, ...], outputs: int) -> Callable[[Values], tuple[Any, ...]]:
    def call(values: Values) -> tuple[Any, ...]:
        result = function(*(values[name] for name in inputs))
        return (result,) if outputs == 1 else tuple(result) if outputs else ()

    return call


def _operator(node: Any) -> Callable[..., Any]:
    """The Python function of an operator of the language or of tensors."""
    kind = node.kind()
    space, _, name = kind.partition("::")
    if name in UNSAFE:
        raise LoadError(f"the TorchScript code calls {kind}, which reaches outside the model; it was not run")
    if kind in LANGUAGE:
        return LANGUAGE[kind]
    schema = node.schema()
    if kind in SCALAR and "Tensor" not in schema.partition("(")[2].rpartition("->")[0]:
        return SCALAR[kind]
    packet = getattr(getattr(torch.ops, space), name, None)
    if packet is None:
        raise LoadError(f"the TorchScript operation {kind} cannot be interpreted", remedy="save the module itself")
    return _by_schema(getattr(packet, schema.partition("(")[0].partition(".")[2] or "default", packet))


def _by_schema(target: Any) -> Callable[..., Any]:
    """TorchScript passes every argument by position; torch.ops wants the keyword-only ones by name."""
    arguments = target._schema.arguments if hasattr(target, "_schema") else ()
    names = [each.name for each in arguments if each.kwarg_only]
    if not names:
        return target
    count = len(arguments) - len(names)
    return lambda *given: target(*given[:count], **dict(zip(names, given[count:], strict=True)))


def _constant(node: Any, inputs: tuple[str, ...], program: Program) -> Callable[[Values], tuple[Any, ...]]:
    kind = node.output().type()
    if node.hasAttribute("name") and kind.kind() == "FunctionType":
        value: Any = kind.annotation_str
    else:
        value = node.output().toIValue()
    return lambda values: (value,)


def _get(node: Any, inputs: tuple[str, ...], program: Program) -> Callable[[Values], tuple[Any, ...]]:
    owner, name = inputs[0], node.s("name")
    return lambda values: (values[owner].read(name),)


def _set(node: Any, inputs: tuple[str, ...], program: Program) -> Callable[[Values], tuple[Any, ...]]:
    owner, value, name = inputs[0], inputs[1], node.s("name")

    def call(values: Values) -> tuple[Any, ...]:
        values[owner].write(name, values[value])
        return ()

    return call


def _method(node: Any, inputs: tuple[str, ...], program: Program) -> Callable[[Values], tuple[Any, ...]]:
    name = node.s("name")

    def call(values: Values) -> tuple[Any, ...]:
        owner, *arguments = (values[each] for each in inputs)
        # Through __call__, so that forward hooks fire and name the steps.
        return (owner(*arguments) if name == "forward" else owner.run(name, tuple(arguments)),)

    return call


def _function(node: Any, inputs: tuple[str, ...], program: Program) -> Callable[[Values], tuple[Any, ...]]:
    def call(values: Values) -> tuple[Any, ...]:
        name, *arguments = (values[each] for each in inputs)
        return program.function(name).run(tuple(arguments), {})

    return call


def _if(node: Any, inputs: tuple[str, ...], program: Program) -> Callable[[Values], tuple[Any, ...]]:
    yes, no = (compile_block(each, program) for each in node.blocks())
    return lambda values: (yes if bool(values[inputs[0]]) else no).run((), values)


def _loop(node: Any, inputs: tuple[str, ...], program: Program) -> Callable[[Values], tuple[Any, ...]]:
    (body,) = (compile_block(each, program) for each in node.blocks())

    def call(values: Values) -> tuple[Any, ...]:
        trips, running, *carried = (values[each] for each in inputs)
        count = 0
        while running and count < trips:
            running, *carried = body.run((count, *carried), values)
            count += 1
        return tuple(carried)

    return call


def _raise(node: Any, inputs: tuple[str, ...], program: Program) -> Callable[[Values], tuple[Any, ...]]:
    def call(values: Values) -> tuple[Any, ...]:
        raise RuntimeError(values[inputs[0]])

    return call


def _collect(make: Callable[..., Any]) -> Callable[..., Callable[[Values], tuple[Any, ...]]]:
    def maker(node: Any, inputs: tuple[str, ...], program: Program) -> Callable[[Values], tuple[Any, ...]]:
        return lambda values: (make([values[name] for name in inputs]),)

    return maker


def _unpack(node: Any, inputs: tuple[str, ...], program: Program) -> Callable[[Values], tuple[Any, ...]]:
    return lambda values: tuple(values[inputs[0]])


_STRUCTURE: dict[str, Callable[..., Callable[[Values], tuple[Any, ...]]]] = {
    "prim::Constant": _constant,
    "prim::GetAttr": _get,
    "prim::SetAttr": _set,
    "prim::CallMethod": _method,
    "prim::CallFunction": _function,
    "prim::If": _if,
    "prim::Loop": _loop,
    "prim::RaiseException": _raise,
    "prim::ListConstruct": _collect(list),
    "prim::TupleConstruct": _collect(tuple),
    "prim::DictConstruct": _collect(lambda flat: dict(zip(flat[::2], flat[1::2], strict=True))),
    "prim::ListUnpack": _unpack,
    "prim::TupleUnpack": _unpack,
    "prim::TupleIndex": lambda node, inputs, program: lambda values: (values[inputs[0]][values[inputs[1]]],),
}
