"""Module and inputs -> Graph, by the first way of tracing that gives the right answer.

The only module that touches private torch API. Rungs, best first:

    pre-dispatch    functionalised before autograd: in-place ops gone, parameters are inputs
    post-dispatch   the same below autograd, for models that cannot be traced above it
    plain           make_fx alone: may bake tensors in, so it must pass the same checks; made functional afterwards
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
import torch._dynamo
from torch import Tensor, fx, nn
from torch._subclasses.functional_tensor import FunctionalTensorMode, dispatch_functionalize
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.graph import CodeGen
from torch.nn.attention import SDPBackend, sdpa_kernel

from dynstab.capture.flex import flex_attention_by_ops
from dynstab.capture.marks import marking, read_marks

Flat = Callable[[Sequence[Tensor], Sequence[Tensor]], list[Tensor]]

_STRIPPED = {"_set_grad_enabled", "_enter_autocast", "_exit_autocast"}


@contextmanager
def tracing_context(module: nn.Module | None = None) -> Iterator[None]:
    """Settings under which every model decomposes into differentiable ATen ops.

    The fast convolutions of mkldnn are kept where `module` is known to have no recurrence, which it would fuse.
    """
    fused = module is None or any(isinstance(m, (nn.RNNBase, torch.jit.ScriptModule)) for m in module.modules())
    fastpath = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(torch.backends.mkldnn.flags(enabled=torch.backends.mkldnn.enabled and not fused))
        stack.enter_context(torch._dynamo.config.patch(error_on_nested_fx_trace=False))
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(flex_attention_by_ops())
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fastpath)


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
        graph_module = make_fx(
            function, tracing_mode="real", _allow_non_fake_inputs=True, _error_on_data_dependent_ops=False
        )(parameters, inputs)
    if not any(_writes(node) for node in graph_module.graph.nodes):
        return graph_module
    # A graph has none of the Python that kept the better rungs from following the model.
    graph_module.graph.set_codegen(CodeGen())

    def again(parameters: Sequence[Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
        return fx.Interpreter(graph_module).run(*parameters, *inputs)

    return _post_dispatch(again, parameters, inputs)


def _writes(node: fx.Node) -> bool:
    """Whether a node changes one of its arguments."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


RUNGS: dict[str, Callable[[Flat, Sequence[Tensor], Sequence[Tensor]], fx.GraphModule]] = {
    "pre-dispatch": _pre_dispatch,
    "post-dispatch": _post_dispatch,
    "plain": _plain,
}


def trace(
    rung: str, function: Flat, module: nn.Module | None, parameters: Sequence[Tensor], inputs: Sequence[Tensor]
) -> fx.GraphModule:
    """One rung: the graph of `function(parameters, inputs)`, cleaned, with paths in its nodes."""
    with tracing_context(module), ExitStack() as stack:
        if module is not None:
            stack.enter_context(marking(module))
        graph_module = RUNGS[rung](function, list(parameters), list(inputs))
    _clean(graph_module)
    return graph_module


def _clean(graph_module: fx.GraphModule) -> None:
    """Read the marks of the trace, then strip grad-mode nodes and dead code."""
    graph = graph_module.graph
    graph.set_codegen(CodeGen())  # flat placeholders in, a flat list out
    read_marks(graph)
    for node in reversed(list(graph.nodes)):
        if getattr(node.target, "__name__", "") in _STRIPPED and not node.users:
            graph.erase_node(node)
    graph.eliminate_dead_code()
    graph_module.recompile()
