"""Does the chain of steps have the derivatives that autograd gives for the untouched model?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from dynstab.capture.capture import Subject, one_line
from dynstab.capture.complex import as_real
from dynstab.capture.functions import opened
from dynstab.capture.graph import Graph
from dynstab.capture.leaves import tensor_leaves
from dynstab.capture.trace import tracing_context
from dynstab.capture.verify import tolerance
from dynstab.core.report import Check
from dynstab.linear.operator import JacobianOperator
from dynstab.systems.dependence import Chain
from dynstab.systems.segment import SegmentFunction

Tensors = tuple[Tensor, ...]


class GradientCheck(NamedTuple):
    """The check, and how far the model's own backward is from the derivative shown, None where they agree."""

    check: Check
    backward_gap: float | None = None


def check_gradient(
    graph: Graph,
    subject: Subject,
    chain: Chain,
    states: Sequence[Tensors],
    functions: Sequence[SegmentFunction],
    operators: Sequence[JacobianOperator],
    precision: torch.dtype,
) -> GradientCheck:
    """The product of the steps' transposed Jacobians is autograd's gradient of the untouched model.

    The gradient of a random linear form of the output is compared at every state that some
    module takes or returns (or that is an input). Where autograd refuses the model (in-place
    work on what a backward needs, a backward that is for training alone), the ops of the graph
    are differentiated by autograd instead, and the detail says so. Where a custom Function's
    backward is not the derivative of its forward, the forward is what must agree.
    """
    output = next(i for i, node in enumerate(graph.outputs) if node is chain.sink)
    cotangent = torch.randn(states[-1][0].shape, generator=torch.Generator().manual_seed(4)).to(states[-1][0])
    got, limit = _pulled(operators, cotangent), 10 * tolerance(precision)

    def outcome(expected: dict[int, list[Tensor]], remark: str = "") -> Check:
        errors = [min(_relative(got[i][0], gradient) for gradient in found) for i, found in sorted(expected.items())]
        where = f"gradients at {len(errors)} of {len(states)} states"
        return Check(
            check="product of the steps equals autograd",
            passed=bool(errors) and max(errors) <= limit,
            error=max(errors, default=None),
            detail=f"{remark}{where}, relative to their norm, limit {limit:g}",
        )

    def of_graph(reason: str) -> GradientCheck:
        found = _graph_gradients(graph, chain, cotangent, functions)
        return GradientCheck(outcome(found, f"{reason}, so the ops of its graph were differentiated; "))

    try:
        own = outcome(_autograd(subject, output, cotangent, states))
    except Exception as error:  # whatever the user's own backward raises
        return of_graph(f"autograd refuses the model itself ({one_line(error)})")
    if own.error is None:
        return of_graph("no module takes or returns a state")
    names = ", ".join(graph.choices.functions)
    if not own.passed and names and not subject.own_backward:
        try:
            with opened():
                through = outcome(_autograd(subject, output, cotangent, states), f"through the forward of {names}; ")
        except Exception:  # a forward that autograd cannot record: the model's own backward stays the measure
            return GradientCheck(own)
        if through.passed:
            return GradientCheck(through, own.error)
    return GradientCheck(own)


def _relative(got: Tensor, expected: Tensor) -> float:
    finite = torch.isfinite(expected)
    if not torch.equal(finite, torch.isfinite(got)):
        return float("inf")
    scale = expected[finite].double().norm()
    gap = (got[finite].double() - expected[finite].double()).norm()
    # Below the normal range, numbers keep few digits or none: a gradient that vanished there agrees.
    if gap <= torch.finfo(expected.dtype).tiny * finite.sum().sqrt():
        return 0.0
    return float(gap / scale) if scale > 0 else float(gap)


def _pulled(operators: Sequence[JacobianOperator], cotangent: Tensor) -> list[Tensors]:
    """The cotangents at every state, first state first, without the leading dimension."""
    current: Tensors = (cotangent.unsqueeze(0),)
    found: list[Tensors] = [current]
    for operator in reversed(operators):
        current = operator.pull_tensors(current)
        found.append(current)
    return [tuple(t[0] for t in tensors) for tensors in reversed(found)]


def _autograd(subject: Subject, output: int, cotangent: Tensor, states: Sequence[Tensors]) -> dict[int, list[Tensor]]:
    """State index -> gradients at the tensors of one run that hold that state's (single-tensor) value."""
    inputs = [t.detach().requires_grad_() if t.is_floating_point() else t for t in subject.inputs]
    seen: list[tuple[int, Tensor, int]] = []

    def note(value: Any) -> None:
        for _, tensor in tensor_leaves(value):
            if tensor.requires_grad and all(tensor is not known for _, known, _ in seen):
                match = _matching(as_real(tensor.detach()), states)
                if match is not None:
                    seen.append((match, tensor, tensor._version))

    with torch.enable_grad(), tracing_context(subject.module), _watching(subject.module, note):
        note(inputs)
        result = subject(subject.differentiable(), inputs)[output]
        kept = [(i, t) for i, t, version in seen if t._version == version]
        if not kept:
            return {}
        gradients = torch.autograd.grad(result, [t for _, t in kept], cotangent, allow_unused=True)
    found: dict[int, list[Tensor]] = {}
    for (i, _), gradient in zip(kept, gradients, strict=True):
        if gradient is not None:
            found.setdefault(i, []).append(as_real(gradient))
    return found


class _Graded(fx.Interpreter):
    """Runs a graph under autograd, with gradients off where the model turned them off, and keeps its values.

    Gradients begin at `source`, also where the model holds constant what comes before.
    """

    def __init__(self, module: fx.GraphModule, source: Sequence[fx.Node]) -> None:
        super().__init__(module, garbage_collect_values=False)
        self._source = frozenset(source)

    def run_node(self, n: fx.Node) -> Any:
        with torch.set_grad_enabled(not n.meta.get("no_grad", False)):
            value = super().run_node(n)
        return value.detach().requires_grad_() if n in self._source else value

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target is torch.ops.aten.copy.default:  # for which autograd has no formula
            return args[1].to(args[0]).expand_as(args[0])
        return super().call_function(target, args, kwargs)


def _graph_gradients(
    graph: Graph, chain: Chain, cotangent: Tensor, functions: Sequence[SegmentFunction]
) -> dict[int, list[Tensor]]:
    """State index -> the gradient at that (single-tensor) state, by autograd through the graph's ops."""
    run = _Graded(graph.module, chain.source)
    with torch.enable_grad(), tracing_context():
        run.run(*graph.arguments())
        held = {i: run.env[f.source[0]] for i, f in enumerate(functions) if len(f.source) == 1}
        gradients = torch.autograd.grad(run.env[chain.sink], list(held.values()), cotangent, allow_unused=True)
    return {i: [gradient] for i, gradient in zip(held, gradients, strict=True) if gradient is not None}


def _matching(tensor: Tensor, states: Sequence[Tensors]) -> int | None:
    for i, state in enumerate(states[:-1]):
        alike = len(state) == 1 and state[0].shape == tensor.shape and state[0].dtype == tensor.dtype
        corner = (slice(1),) * tensor.ndim
        # A look at one entry spares most of the full comparisons.
        if not alike:
            continue
        # Relative to the state: where signals have vanished, all states are within any fixed distance.
        distance = 1e-6 * float(state[0].abs().nan_to_num(0.0, 0.0, 0.0).max()) if state[0].numel() else 0.0
        if _close(state[0][corner], tensor[corner], distance) and _close(state[0], tensor, distance):
            return i
    return None


def _close(a: Tensor, b: Tensor, distance: float) -> bool:
    return torch.allclose(a, b.detach(), rtol=1e-4, atol=distance, equal_nan=True)


@contextmanager
def _watching(module: nn.Module, note: Callable[[Any], None]) -> Iterator[None]:
    """Hooks that show every module's inputs and outputs, for the duration."""
    with ExitStack() as stack:
        for submodule in module.modules():
            if not isinstance(submodule, torch.jit.ScriptModule):
                stack.callback(submodule.register_forward_pre_hook(lambda _m, given: note(given)).remove)
                stack.callback(submodule.register_forward_hook(lambda _m, _given, result: note(result)).remove)
        yield
