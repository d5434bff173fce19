"""Module and inputs -> Graph, by the first way of tracing that gives the right answer.

The only module that touches private torch API. Rungs, best first:

    pre-dispatch    functionalised before autograd: in-place ops gone, parameters are inputs
    post-dispatch   the same below autograd, for models that cannot be traced above it
    plain           make_fx alone: may bake tensors in, so it must pass the same checks
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch._dynamo
import torch.fx.traceback as traceback
from torch import Tensor, fx, nn
from torch._subclasses.functional_tensor import FunctionalTensorMode, dispatch_functionalize
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.graph import CodeGen
from torch.nn.attention import SDPBackend, sdpa_kernel

Flat = Callable[[Sequence[Tensor], Sequence[Tensor]], list[Tensor]]

_PATH = "dynstab_path"
_STRIPPED = {"_set_grad_enabled", "_enter_autocast", "_exit_autocast"}


@contextmanager
def tracing_context() -> Iterator[None]:
    """Settings under which every model decomposes into differentiable ATen ops."""
    fastpath = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
        stack.enter_context(torch._dynamo.config.patch(error_on_nested_fx_trace=False))
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fastpath)


@contextmanager
def _module_paths(module: nn.Module) -> Iterator[None]:
    """Write into every node that is traced the path of the module that it runs in and its call number."""
    entered: list[tuple[str, str, int]] = []
    calls: Counter[str] = Counter()
    handles = []

    def mark() -> None:
        traceback.current_meta["nn_module_stack"] = {_PATH: entered[-1] if entered else ("", "", 1)}

    for path, submodule in module.named_modules():

        def enter(submodule: nn.Module, _inputs: Any, path: str = path) -> None:
            calls[path] += 1
            entered.append((path, type(submodule).__name__, calls[path]))
            mark()

        def leave(_module: nn.Module, _inputs: Any, _output: Any) -> None:
            entered.pop()
            mark()

        if not isinstance(submodule, torch.jit.ScriptModule):
            handles.append(submodule.register_forward_pre_hook(enter, prepend=True))
            handles.append(submodule.register_forward_hook(leave, always_call=True))
    try:
        with traceback.preserve_node_meta():
            yield
    finally:
        for handle in handles:
            handle.remove()


def _pre_dispatch(function: Flat, parameters: Sequence[Tensor], inputs: Sequence[Tensor]) -> fx.GraphModule:
    functional = dispatch_functionalize(function, FunctionalTensorMode(pre_dispatch=True))
    return make_fx(
        functional,
        tracing_mode="real",
        pre_dispatch=True,
        _allow_non_fake_inputs=True,
        _error_on_data_dependent_ops=False,
    )(parameters, inputs)


def _post_dispatch(function: Flat, parameters: Sequence[Tensor], inputs: Sequence[Tensor]) -> fx.GraphModule:
    functional = dispatch_functionalize(function, FunctionalTensorMode())
    with torch.no_grad():
        return make_fx(
            functional, tracing_mode="real", _allow_non_fake_inputs=True, _error_on_data_dependent_ops=False
        )(parameters, inputs)


def _plain(function: Flat, parameters: Sequence[Tensor], inputs: Sequence[Tensor]) -> fx.GraphModule:
    with torch.no_grad():
        return make_fx(function, tracing_mode="real", _allow_non_fake_inputs=True, _error_on_data_dependent_ops=False)(
            parameters, inputs
        )


RUNGS: dict[str, Callable[[Flat, Sequence[Tensor], Sequence[Tensor]], fx.GraphModule]] = {
    "pre-dispatch": _pre_dispatch,
    "post-dispatch": _post_dispatch,
    "plain": _plain,
}


def trace(
    rung: str, function: Flat, module: nn.Module | None, parameters: Sequence[Tensor], inputs: Sequence[Tensor]
) -> fx.GraphModule:
    """One rung: the graph of `function(parameters, inputs)`, cleaned, with paths in its nodes."""
    with tracing_context(), ExitStack() as stack:
        if module is not None:
            stack.enter_context(_module_paths(module))
        graph_module = RUNGS[rung](function, list(parameters), list(inputs))
    _clean(graph_module)
    return graph_module


def _clean(graph_module: fx.GraphModule) -> None:
    """Strip grad-mode nodes and dead code; name the module of every node, and whether gradients were off."""
    graph = graph_module.graph
    graph.set_codegen(CodeGen())  # flat placeholders in, a flat list out
    gradients = True
    for node in graph.nodes:
        if getattr(node.target, "__name__", "") == "_set_grad_enabled":
            gradients = bool(node.args[0])
        node.meta["no_grad"] = not gradients
    for node in reversed(list(graph.nodes)):
        if getattr(node.target, "__name__", "") in _STRIPPED and not node.users:
            graph.erase_node(node)
    graph.eliminate_dead_code()
    for node in graph.nodes:
        path, kind, call = (node.meta.get("nn_module_stack") or {}).get(_PATH, ("", "", 1))
        node.meta["path"], node.meta["module"], node.meta["call"] = path, kind, call
    graph_module.recompile()
