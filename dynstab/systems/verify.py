"""Does the chain of steps have the derivatives that autograd gives for the untouched model?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dynstab.capture.capture import Subject, one_line
from dynstab.capture.graph import Graph
from dynstab.capture.leaves import tensor_leaves
from dynstab.capture.trace import tracing_context
from dynstab.capture.verify import tolerance
from dynstab.core.report import Check
from dynstab.linear.operator import JacobianOperator
from dynstab.systems.dependence import Chain
from dynstab.systems.segment import SegmentFunction, relative_change

Tensors = tuple[Tensor, ...]


def check_dependence(chain: Chain, values: dict[Any, Any]) -> Check:
    """Moving the source moves the output: a trace that baked its input in would not."""
    function = SegmentFunction(chain.source, (chain.sink,), values)
    change = relative_change(function, tuple(values[n] for n in chain.source), 1e-2)
    return Check(
        check="output depends on the source",
        passed=change > 0,
        error=None,
        detail=f"relative change {change:.2g} when the first state moves by 1%",
    )


def check_adjoint(operators: Sequence[JacobianOperator], precision: torch.dtype) -> Check:
    """<J u, w> = <u, J^T w> for every step, relative to ||J u|| ||w||.

    `precision` is the coarsest dtype in the network (some compute their norms in float32 whatever they are given).
    """
    generator = torch.Generator().manual_seed(3)
    worst = 0.0
    for operator in operators:
        u = torch.randn(operator.samples, operator.cols, 1, generator=generator).to(operator.device, operator.dtype)
        w = torch.randn(operator.samples, operator.rows, 1, generator=generator).to(operator.device, operator.dtype)
        forward, backward = operator.matmat(u).double(), operator.rmatmat(w).double()
        left, right = (forward * w).sum((1, 2)), (u * backward).sum((1, 2))
        scale = forward.norm(dim=1).squeeze(-1) * w.double().norm(dim=1).squeeze(-1)
        gap = ((left - right).abs() / scale.clamp_min(1e-30)).where(scale > 0, (left - right).abs())
        worst = max(worst, float(gap.nan_to_num(0.0).max()))
    limit = tolerance(precision)
    return Check(
        check="adjoint identity", passed=worst <= limit, error=worst, detail=f"{len(operators)} steps, limit {limit:g}"
    )


def check_gradient(
    graph: Graph,
    subject: Subject,
    chain: Chain,
    states: Sequence[Tensors],
    operators: Sequence[JacobianOperator],
    precision: torch.dtype,
) -> Check:
    """The product of the steps' transposed Jacobians is autograd's gradient of the untouched model.

    The gradient of a random linear form of the output is compared at every state that some
    module takes or returns (or that is an input).
    """
    name = "product of the steps equals autograd"
    output = next(i for i, node in enumerate(graph.outputs) if node is chain.sink)
    cotangent = torch.randn(states[-1][0].shape, generator=torch.Generator().manual_seed(4)).to(states[-1][0])
    try:
        expected = _autograd(subject, output, cotangent, states)
    except RuntimeError as error:  # in-place work that autograd refuses, say: then there is nothing to compare with
        return Check(check=name, passed=False, error=None, detail=f"autograd fails on the model: {one_line(error)}")
    got = _pulled(operators, cotangent)
    errors = [min(_relative(got[i][0], gradient) for gradient in found) for i, found in sorted(expected.items())]
    if not errors:
        return Check(check=name, passed=False, error=None, detail="no state is an input or output of a module")
    limit = 10 * tolerance(precision)
    worst = max(errors)
    return Check(
        check=name,
        passed=worst <= limit,
        error=worst,
        detail=f"gradients at {len(errors)} of {len(states)} states, relative to their norm, limit {limit:g}",
    )


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
                match = _matching(tensor, states)
                if match is not None:
                    seen.append((match, tensor, tensor._version))

    with torch.enable_grad(), tracing_context(), _watching(subject.module, note):
        note(inputs)
        result = subject(subject.differentiable(), inputs)[output]
        kept = [(i, t) for i, t, version in seen if t._version == version]
        gradients = torch.autograd.grad(result, [t for _, t in kept], cotangent, allow_unused=True)
    found: dict[int, list[Tensor]] = {}
    for (i, _), gradient in zip(kept, gradients, strict=True):
        if gradient is not None:
            found.setdefault(i, []).append(gradient)
    return found


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
