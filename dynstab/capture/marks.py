"""Where each node of a trace comes from: its module, and the custom autograd Function in whose forward it ran."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.fx.traceback as traceback
from torch import fx, nn
from torch.autograd import Function

_PATH, _FUNCTION = "dynstab_path", "dynstab_function"


class _Marker:
    """Keeps what is being entered, and puts it where every node that is traced takes its origin from."""

    def __init__(self) -> None:
        self.modules: list[tuple[str, str, int]] = []
        self.functions: list[str] = []
        self.calls: Counter[str] = Counter()

    def mark(self) -> None:
        traceback.current_meta["nn_module_stack"] = {
            _PATH: self.modules[-1] if self.modules else ("", "", 1),
            _FUNCTION: self.functions[0] if self.functions else "",
        }


@contextmanager
def marking(module: nn.Module) -> Iterator[None]:
    """Write into every node that is traced the path of its module, the module's call number, and its Function."""
    marker = _Marker()
    handles = []
    for path, submodule in module.named_modules():

        def enter(submodule: nn.Module, _inputs: Any, path: str = path) -> None:
            marker.calls[path] += 1
            marker.modules.append((path, type(submodule).__name__, marker.calls[path]))
            marker.mark()

        def leave(_module: nn.Module, _inputs: Any, _output: Any) -> None:
            marker.modules.pop()
            marker.mark()

        if not isinstance(submodule, torch.jit.ScriptModule):
            handles.append(submodule.register_forward_pre_hook(enter, prepend=True))
            handles.append(submodule.register_forward_hook(leave, always_call=True))
    try:
        with traceback.preserve_node_meta(), _functions_marked(marker):
            yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _functions_marked(marker: _Marker) -> Iterator[None]:
    original = vars(Function)["apply"]

    def apply(function: type[Function], *args: Any, **kwargs: Any) -> Any:
        marker.calls[function.__name__] += 1
        marker.functions.append(f"{function.__name__} {marker.calls[function.__name__]}")
        marker.mark()
        try:
            return original.__func__(function, *args, **kwargs)
        finally:
            marker.functions.pop()
            marker.mark()

    Function.apply = classmethod(apply)  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        Function.apply = original  # type: ignore[method-assign]


def read_marks(graph: fx.Graph) -> None:
    """Name in `meta` of every node its `path`, `module`, `call` and `function`, and whether gradients were off.

    A custom Function runs its forward without gradients and may turn them off inside once
    more; what holds for its ops is whether they were on where it was called.
    """
    gradients = True
    for node in graph.nodes:
        marks = node.meta.get("nn_module_stack") or {}
        function = marks.get(_FUNCTION, "")
        if getattr(node.target, "__name__", "") == "_set_grad_enabled" and not function:
            gradients = bool(node.args[0])
        node.meta["path"], node.meta["module"], node.meta["call"] = marks.get(_PATH, ("", "", 1))
        node.meta["function"], node.meta["no_grad"] = function, not gradients
