"""Climb down the ladder of tracing until a graph passes its checks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from dynstab.capture.graph import Graph
from dynstab.capture.isolate import isolated
from dynstab.capture.leaves import tensor_leaves
from dynstab.capture.random import freeze_random
from dynstab.capture.trace import RUNGS, trace, tracing_context
from dynstab.capture.verify import check_live_inputs, check_live_parameters, check_output
from dynstab.core.errors import CaptureError, InputError
from dynstab.core.report import Check


class Subject:
    """A module with its arguments, seen as one function of flat tensors.

    Attributes:
        parameters: name -> tensor, parameters then buffers, in the dtype and on the device of the analysis.
        learned: the names among them that are parameters. cast: their dtype is not the module's own.
        inputs, input_names: the tensors among the arguments.
    """

    def __init__(
        self,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        seed: int = 0,
    ) -> None:
        self.module, self.seed = module, seed
        learned = dict(module.named_parameters())
        named = {**learned, **dict(module.named_buffers())}
        self.learned = frozenset(learned)
        self.cast = any(t.is_floating_point() and dtype not in (None, t.dtype) for t in learned.values())
        self.parameters = {name: _cast(tensor, dtype, device) for name, tensor in named.items()}
        leaves, self._spec = pytree.tree_flatten((args, dict(kwargs)))
        self._leaves = [_cast(leaf, dtype, device) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self._positions = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        self.inputs = tuple(self._leaves[i].detach() for i in self._positions)
        self.input_names = _input_names(module, args, kwargs, len(self.inputs))
        self.output_paths: tuple[str, ...] = ()

    def __call__(self, parameters: Sequence[Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
        """The tensors that forward returns; notes their paths."""
        found = list(tensor_leaves(self.forward(parameters, inputs)))
        self.output_paths = tuple(path for path, _ in found)
        return [tensor for _, tensor in found]

    def forward(self, parameters: Sequence[Tensor], inputs: Sequence[Tensor]) -> Any:
        """What forward returns with these parameters and inputs in place, under the same random draws each time.

        Call it only where the random state is put back (see `isolated`).
        """
        torch.manual_seed(self.seed)
        leaves = list(self._leaves)
        for position, value in zip(self._positions, inputs, strict=True):
            leaves[position] = value
        args, kwargs = pytree.tree_unflatten(leaves, self._spec)
        replaced = dict(zip(self.parameters, parameters, strict=True))
        return functional_call(self.module, replaced, args, kwargs)

    def differentiable(self) -> list[Tensor]:
        """The parameters and buffers, the former as fresh leaves that require gradients."""
        return [
            tensor.detach().requires_grad_() if name in self.learned and tensor.is_floating_point() else tensor.clone()
            for name, tensor in self.parameters.items()
        ]

    def run(self, parameters: Sequence[Tensor] | None = None, inputs: Sequence[Tensor] | None = None) -> list[Tensor]:
        """One eager run without gradients, in the context that tracing uses.

        Raises:
            InputError: forward raised.
        """
        values = list(self.parameters.values()) if parameters is None else parameters
        # Buffers are cloned: a forward that moves its statistics must not move those of the next run.
        fresh = [t if name in self.learned else t.clone() for name, t in zip(self.parameters, values, strict=True)]
        with torch.no_grad(), tracing_context():
            try:
                return self(fresh, self.inputs if inputs is None else inputs)
            except Exception as error:
                shapes = ", ".join(
                    f"{name}: {tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}"
                    for name, t in zip(self.input_names, self.inputs, strict=True)
                )
                raise InputError(
                    f"the model rejects the input ({shapes or 'no tensor'}): {one_line(error)}",
                    remedy="give inputs that its forward accepts, e.g. --input randn:8,3,32,32"
                    + (", or analyse in another --dtype" if self.cast else ""),
                ) from error


def one_line(error: BaseException) -> str:
    """An exception's type and message in one line of at most 300 characters."""
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {text[:300]}"


def unwrap(module: nn.Module) -> nn.Module:
    """The module itself behind torch.compile, DataParallel and DistributedDataParallel."""
    while True:
        if hasattr(module, "_orig_mod"):
            module = module._orig_mod  # type: ignore[assignment]
        elif isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            module = module.module
        else:
            return module


def capture(
    module: nn.Module,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
    seed: int = 0,
) -> tuple[Graph, Subject, tuple[Check, ...]]:
    """The graph of `module(*args, **kwargs)` in eval mode, verified; the module is not changed.

    Floating tensors are computed in `dtype` on `device` where those are given.

    Raises:
        InputError: the model rejects the inputs.
        CaptureError: it returns no floating tensor, or no way of tracing gives what eager gives.
    """
    subject = Subject(unwrap(module), args, kwargs or {}, dtype=dtype, device=device, seed=seed)
    with isolated(subject.module):
        return _climb(subject)


def _climb(subject: Subject) -> tuple[Graph, Subject, tuple[Check, ...]]:
    subject.run()  # lazy imports and caches happen here, not under the trace
    expected = [tensor.clone() for tensor in subject.run()]
    if not any(tensor.is_floating_point() or tensor.is_complex() for tensor in expected):
        raise CaptureError(
            "the model returns no floating-point tensor",
            expected="a tensor, or a tuple, dict or dataclass that holds one",
        )
    reasons: list[str] = []
    for rung in RUNGS:
        try:
            graph = _trace(rung, subject)
            checks = (
                check_output(graph, expected),
                check_live_parameters(graph, subject),
                check_live_inputs(graph, subject),
            )
        except InputError:
            raise
        except Exception as error:  # a rung that fails hands over to the next; the last reports them all
            reasons.append(f"{rung}: {one_line(error)}")
            continue
        if all(check.passed for check in checks):
            return graph, subject, checks
        reasons.append(f"{rung}: " + "; ".join(f"{c.check} failed ({c.detail})" for c in checks if not c.passed))
    raise CaptureError("the model cannot be traced (" + " | ".join(reasons) + ")")


def _trace(rung: str, subject: Subject) -> Graph:
    parameters = list(subject.parameters.values())
    graph_module = trace(rung, subject, subject.module, parameters, subject.inputs)
    torch.manual_seed(subject.seed)
    frozen = freeze_random(graph_module, [*parameters, *subject.inputs])
    notes = (f"{frozen} random ops replayed with the draws of seed {subject.seed}",) if frozen else ()
    return Graph(
        module=graph_module,
        parameters=subject.parameters,
        inputs=subject.inputs,
        input_names=subject.input_names,
        output_paths=subject.output_paths,
        rung=rung,
        notes=notes,
    )


class _Function(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


def capture_function(function: Callable[..., Any], args: tuple[Any, ...]) -> Graph:
    """The graph of `function(*args)` for a function or a module, as it is (a module keeps its mode).

    Tensors that the function closes over become constants of the graph; a module's parameters stay live.

    Raises:
        InputError: it rejects the inputs. CaptureError: it cannot be traced.
    """
    module = function if isinstance(function, nn.Module) else _Function(function)
    subject = Subject(unwrap(module), args, {})
    with isolated(subject.module, training=True):
        return _climb(subject)[0]


def _cast(tensor: Tensor, dtype: torch.dtype | None, device: torch.device | None) -> Tensor:
    if dtype is not None and tensor.is_floating_point():
        return tensor.detach().to(dtype=dtype, device=device)
    return tensor.detach().to(device=device) if device is not None else tensor


def _input_names(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], count: int) -> tuple[str, ...]:
    try:
        order = list(inspect.signature(module.forward).parameters)
    except (TypeError, ValueError):
        order = []
    named = [(order[i] if i < len(order) else f"input {i}", value) for i, value in enumerate(args)]
    names = [
        key if path in ("", "output") else f"{key}.{path}"
        for key, value in [*named, *kwargs.items()]
        for path, _ in tensor_leaves(value)
    ]
    return tuple(names) if len(names) == count else tuple(f"input {i}" for i in range(count))
