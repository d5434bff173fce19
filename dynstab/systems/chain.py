"""The last rung: a network that no trace can follow, as the chain of its longest list of blocks.

The states are what the blocks of one nn.ModuleList or nn.Sequential hand to each other, and a
step is `block(h, *recorded arguments)`. What comes before and after the list is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dynstab.capture.capture import Subject
from dynstab.capture.isolate import isolated
from dynstab.capture.leaves import tensor_leaves
from dynstab.capture.trace import tracing_context
from dynstab.capture.verify import deviation, tolerance
from dynstab.core.errors import DynstabError
from dynstab.core.report import Check
from dynstab.linear.layout import Layout
from dynstab.linear.linearizer import Linearizer
from dynstab.linear.operator import JacobianOperator, RelaidOperator
from dynstab.systems.samples import find_layouts
from dynstab.systems.trajectory import State, Step, Trajectory
from dynstab.systems.verify import check_adjoint

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class Call:
    """One recorded call of a block: its first argument is the state."""

    path: str
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any

    @property
    def state(self) -> Tensor | None:
        first = self.args[0] if self.args else next(iter(self.kwargs.values()), None)
        return first if isinstance(first, Tensor) and first.is_floating_point() else None

    @property
    def result(self) -> Tensor | None:
        return next((tensor for _, tensor in tensor_leaves(self.output)), None)


def chain_system(subject: Subject, batch: int | None, cause: DynstabError) -> tuple[Trajectory, tuple[Check, ...]]:
    """The trajectory of the longest list of blocks, with its checks.

    Raises:
        DynstabError: `cause`, where no list of at least two blocks hands a tensor from one to the next.
    """
    with isolated(subject.module), tracing_context(subject.module):
        with torch.enable_grad():
            alive = _differentiated(subject)
        with torch.no_grad():
            run = _record(subject, list(subject.parameters.values()))
            calls = _longest(subject, {path: call for path, call in run.items() if path in alive})
        if calls is None:
            raise cause
        functions = [_function(subject, call) for call in calls]
        values: list[Tensors] = [(_state(call),) for call in calls]
        with torch.no_grad():
            values.append(functions[-1](values[-1]))
        operators = [_operator(f, value) for f, value in zip(functions, values, strict=False)]
        trajectory = _trajectory(subject, calls, functions, values, operators, batch, cause)
        return trajectory, (
            _check_chain(functions, values),
            _check_gradient(subject, calls, operators, values),
            check_adjoint(operators, values[0][0].dtype),
        )


def _record(subject: Subject, parameters: list[Tensor]) -> dict[str, Call]:
    """The first call of every module in one run, by path, in order."""
    calls: dict[str, Call] = {}
    with ExitStack() as stack:
        for path, module in subject.module.named_modules():

            def note(module: nn.Module, args: Any, kwargs: Any, output: Any, path: str = path) -> None:
                calls.setdefault(path, Call(path=path, module=module, args=args, kwargs=kwargs, output=output))

            if path and not isinstance(module, torch.jit.ScriptModule):
                stack.callback(module.register_forward_hook(note, with_kwargs=True).remove)
        subject(parameters, subject.inputs)
    return calls


def _differentiated(subject: Subject) -> set[str]:
    """The modules whose result carries a gradient: not those that run under no_grad."""
    run = _record(subject, subject.differentiable())
    return {path for path, call in run.items() if call.result is not None and call.result.requires_grad}


def _longest(subject: Subject, calls: Mapping[str, Call]) -> list[Call] | None:
    """The calls of the longest list whose members hand one tensor on."""
    chains = []
    for path, container in subject.module.named_modules():
        if isinstance(container, (nn.ModuleList, nn.Sequential)):
            prefix = f"{path}." if path else ""
            members = [calls[name] for child in container._modules if (name := prefix + child) in calls]
            if len(members) > 1 and _hands_on(members):
                chains.append(members)
    return max(chains, key=len, default=None)


def _hands_on(members: list[Call]) -> bool:
    if any(call.state is None or call.result is None for call in members):
        return False
    pairs = zip(members, members[1:], strict=False)
    return all(_state(b).shape == a.result.shape and torch.equal(_state(b), a.result) for a, b in pairs)  # type: ignore[union-attr,arg-type]


def _state(call: Call) -> Tensor:
    assert call.state is not None
    return call.state.detach()


def _function(subject: Subject, call: Call) -> Callable[[Tensors], Tensors]:
    """`block(h, *recorded arguments)` with the parameters of the analysis."""
    prefix = call.path + "."
    own = {name.removeprefix(prefix): t for name, t in subject.parameters.items() if name.startswith(prefix)}

    def function(tensors: Tensors) -> Tensors:
        if call.args:
            args, kwargs = (tensors[0], *call.args[1:]), call.kwargs
        else:
            name = next(iter(call.kwargs))
            args, kwargs = (), {**call.kwargs, name: tensors[0]}
        output = functional_call(call.module, own, args, kwargs)
        return (next(tensor for _, tensor in tensor_leaves(output)),)

    return function


def _operator(function: Callable[[Tensors], Tensors], value: Tensors) -> JacobianOperator:
    return Linearizer(lambda tensor: function((tensor,))[0], value[0])(value[0])[1]


def _trajectory(
    subject: Subject,
    calls: list[Call],
    functions: list[Callable[[Tensors], Tensors]],
    values: list[Tensors],
    operators: list[JacobianOperator],
    batch: int | None,
    cause: DynstabError,
) -> Trajectory:
    layouts, coupled = find_layouts(values, [o.push_tensors for o in operators], None if batch is None else (0, batch))
    names = [call.path for call in calls]
    return Trajectory(
        kind="depth",
        states=tuple(
            State(index=i, name=name, value=value, layout=layout, **_dims(value[0], layout))
            for i, (name, value, layout) in enumerate(
                zip([f"input of {names[0]}", *names], values, layouts, strict=True)
            )
        ),
        steps=tuple(
            Step(
                index=i,
                name=name,
                kind="plain" if values[i][0].shape == values[i + 1][0].shape else "transition",
                source=i,
                target=i + 1,
                jacobian=RelaidOperator(operators[i], layouts[i], layouts[i + 1]),
                function=functions[i],
                block=name,
                parameters=tuple(calls[i].module.parameters()),
            )
            for i, name in enumerate(names)
        ),
        samples=layouts[0].samples,
        coupled=coupled,
        rung="module chain",
        notes=(f"only the blocks {names[0]} to {names[-1]} are analysed: {cause.got}",),
        routes=dict(sum((Counter(operator.routes) for operator in operators), Counter())),
    )


def _dims(tensor: Tensor, layout: Layout) -> dict[str, int | None]:
    if tensor.ndim == 3 and layout.samples > 1:
        return {"token_dim": 1, "feature_dim": 2}
    return {"token_dim": None, "feature_dim": 1 if tensor.ndim > 1 else None}


def _check_chain(functions: list[Callable[[Tensors], Tensors]], values: list[Tensors]) -> Check:
    with torch.no_grad():
        got = [function(value)[0] for function, value in zip(functions, values, strict=False)]
    error = deviation(got, [value[0] for value in values[1:]])
    limit = tolerance(values[0][0].dtype)
    detail = f"every block on its own, {len(functions)} of them, limit {limit:g}"
    return Check(check="output equals eager", passed=error <= limit, error=error, detail=detail)


def _check_gradient(
    subject: Subject, calls: list[Call], operators: list[JacobianOperator], values: list[Tensors]
) -> Check:
    """The chain's pull against autograd through the untouched model, from the last block to the first."""
    with torch.enable_grad(), _requires_grad(calls[0]) as leaf:
        run = _record(subject, subject.differentiable())
        result = run[calls[-1].path].result
        assert result is not None
        cotangent = torch.randn(result.shape, generator=torch.Generator().manual_seed(4)).to(result)
        (expected,) = torch.autograd.grad(result, [leaf[0]], cotangent)
    moving: Tensors = (cotangent.unsqueeze(0),)
    for operator in reversed(operators):
        moving = operator.pull_tensors(moving)
    error = float((moving[0][0] - expected).norm() / expected.norm().clamp_min(1e-30))
    limit = 10 * tolerance(expected.dtype)
    detail = f"from the last block to the first, limit {limit:g}"
    return Check(check="product of the steps equals autograd", passed=error <= limit, error=error, detail=detail)


@contextmanager
def _requires_grad(call: Call) -> Iterator[list[Tensor]]:
    """Makes the state that enters a block a leaf that requires gradients; yields a list that will hold it."""
    leaf: list[Tensor] = []

    def enter(_module: nn.Module, args: Any, kwargs: Any) -> Any:
        if leaf:
            return None
        if args:
            leaf.append(args[0].detach().requires_grad_())
            return (leaf[0], *args[1:]), kwargs
        name = next(iter(kwargs))
        leaf.append(kwargs[name].detach().requires_grad_())
        return args, {**kwargs, name: leaf[0]}

    handle = call.module.register_forward_pre_hook(enter, with_kwargs=True)
    try:
        yield leaf
    finally:
        handle.remove()
