"""Custom autograd Functions, whose backward need not be the derivative of their forward.

Two derivatives can be shown. `opened` runs their forward as plain code, so that autograd
differentiates it (the true derivative). `recorded` makes each call one opaque node of a trace;
its derivative is then what the model's own backward says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import CodeType, FunctionType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, fx
from torch.autograd import Function
from torch.utils import _pytree as pytree

Apply = Callable[..., Any]
Handler = Callable[[type[Function], Apply, tuple[Any, ...], dict[str, Any]], Any]

_APPLY: FunctionType = vars(Function)["apply"].__func__
# Arguments are the Function's class and what `apply` was given, as they were before any change here.
_original: Apply = FunctionType(
    _APPLY.__code__, _APPLY.__globals__, _APPLY.__name__, _APPLY.__defaults__, _APPLY.__closure__
)
_handlers: list[Handler | None] = []


def _intercepting_code(__class__: type) -> CodeType:  # noqa: N807 - the cell that `super()` needs
    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        from dynstab.capture.functions import intercepted

        return intercepted(cls, args, kwargs) if __class__ else None

    return apply.__code__


@contextmanager
def intercepting(handler: Handler) -> Iterator[None]:
    """Calls of `SomeFunction.apply` go to `handler(SomeFunction, apply, args, kwargs)` meanwhile.

    The code of `apply` is exchanged, not the name: `grad_reverse = GradReverse.apply`, bound long
    before, is met too.
    """
    before = _APPLY.__code__
    _handlers.append(handler)
    _APPLY.__code__ = _intercepting_code(Function)
    try:
        yield
    finally:
        _APPLY.__code__ = before
        _handlers.pop()


def intercepted(function: type[Function], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Where the exchanged code of `apply` leads."""
    handler = _handlers[-1] if _handlers else None
    if handler is None:
        return _original(function, *args, **kwargs)

    def apply(*given: Any, **named: Any) -> Any:
        _handlers.append(None)  # what the Function itself calls is its own affair
        try:
            return _original(function, *given, **named)
        finally:
            _handlers.pop()

    return handler(function, apply, args, kwargs)


@contextmanager
def noted() -> Iterator[dict[str, None]]:
    """Collects the names of the Functions that are called with a floating-point tensor."""
    names: dict[str, None] = {}

    def note(function: type[Function], apply: Apply, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if any(_floating(leaf) for leaf in pytree.tree_leaves((args, kwargs))):
            names[function.__name__] = None
        return apply(*args, **kwargs)

    with intercepting(note):
        yield names


@contextmanager
def opened() -> Iterator[None]:
    """Function.apply runs the forward as plain code: autograd sees through it."""

    def run(function: type[Function], apply: Apply, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if function.setup_context is not Function.setup_context:
            return function.forward(*args, **kwargs)
        return function.forward(_Context(args), *args, **kwargs)

    with intercepting(run):
        yield


class _Context(SimpleNamespace):
    """What a forward writes into, and nobody reads."""

    def __init__(self, args: tuple[Any, ...]) -> None:
        super().__init__(needs_input_grad=tuple(_floating(each) for each in args))

    def _nothing(self, *_args: Any, **_kwargs: Any) -> None:
        return None

    save_for_backward = save_for_forward = mark_dirty = mark_non_differentiable = set_materialize_grads = _nothing


_library = torch.library.Library("dynstab", "DEF")
_library.define("custom_function(Tensor[] tensors, int call) -> Tensor[]")
_calls: dict[int, Recorded] = {}
_TENSOR = object()  # where a tensor stands in what a Function returns


class Recorded:
    """One call of a Function with everything but its tensors fixed: tensors -> the tensors that it returns."""

    def __init__(self, function: type[Function], apply: Apply, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.name, self._apply = f"{function.__name__}.apply", apply
        self._leaves, self._spec = pytree.tree_flatten((args, kwargs))
        self._places = [i for i, leaf in enumerate(self._leaves) if isinstance(leaf, Tensor)]
        self.tensors: list[Tensor] = [self._leaves[i] for i in self._places]
        self._result: tuple[list[Any], pytree.TreeSpec] = ([], pytree.tree_structure(None))

    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        leaves = list(self._leaves)
        for place, tensor in zip(self._places, tensors, strict=True):
            leaves[place] = tensor.clone()  # which the Function may write into
        args, kwargs = pytree.tree_unflatten(leaves, self._spec)
        found, spec = pytree.tree_flatten(self._apply(*args, **kwargs))
        self._result = [_TENSOR if isinstance(leaf, Tensor) else leaf for leaf in found], spec
        return [leaf for leaf in found if isinstance(leaf, Tensor)]

    def rebuilt(self, tensors: Sequence[Tensor]) -> Any:
        """What the Function returned, with these tensors in place of its own."""
        waiting = iter(tensors)
        leaves, spec = self._result
        return pytree.tree_unflatten([next(waiting) if leaf is _TENSOR else leaf for leaf in leaves], spec)

    def forget(self) -> None:
        """Let go of the tensors of the trace."""
        self.tensors = []
        for place in self._places:
            self._leaves[place] = None


def _run_recorded(tensors: list[Tensor], call: int) -> list[Tensor]:
    # A library's op must not return its arguments, which a Function may.
    return [tensor.clone() for tensor in _calls[call](tensors)]


_library.impl("custom_function", _run_recorded, "CompositeExplicitAutograd")


@contextmanager
def recorded() -> Iterator[None]:
    """In a trace, each call becomes one node `dynstab::custom_function`; see `bind_recorded`."""

    def record(function: type[Function], apply: Apply, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call = Recorded(function, apply, args, kwargs)
        if not any(_floating(tensor) for tensor in call.tensors):
            return apply(*args, **kwargs)
        number = len(_calls)
        _calls[number] = call
        return call.rebuilt(torch.ops.dynstab.custom_function(call.tensors, number))

    try:
        with intercepting(record):
            yield
    finally:
        for call in _calls.values():
            call.forget()


def bind_recorded(graph_module: fx.GraphModule) -> None:
    """Put the calls themselves in place of the op that stood for them in the trace."""
    if not _calls:
        return
    for node in graph_module.graph.nodes:
        if node.target is torch.ops.dynstab.custom_function.default:
            tensors, number = node.args
            node.target, node.args = _callable(_calls[number]), (tensors,)
    _calls.clear()
    graph_module.recompile()


def _callable(call: Recorded) -> Callable[[Sequence[Tensor]], list[Tensor]]:
    """A plain function, whose name the graph's code and the report can show."""

    def custom_function(tensors: Sequence[Tensor]) -> list[Tensor]:
        return call(tensors)

    custom_function.__name__ = custom_function.__qualname__ = call.name
    return custom_function


def _floating(value: Any) -> bool:
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())
