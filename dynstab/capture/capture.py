"""Climb down the ladder of tracing until a graph passes its checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from dynstab.capture.functions import bind_recorded, recorded
from dynstab.capture.graph import Graph
from dynstab.capture.isolate import isolated
from dynstab.capture.observe import observe
from dynstab.capture.random import freeze_random
from dynstab.capture.subject import Subject, one_line
from dynstab.capture.trace import RUNGS, trace
from dynstab.capture.verify import check_live_inputs, check_live_parameters, check_output, deviation
from dynstab.core.errors import CaptureError, InputError
from dynstab.core.report import Check, Choices


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
    own_backward: bool = False,
) -> tuple[Graph, Subject, tuple[Check, ...]]:
    """The graph of `module(*args, **kwargs)` in eval mode, verified; the module is not changed.

    Floating tensors are computed in `dtype` on `device` where those are given. Custom autograd
    Functions are traced through their forward, or kept as one node each with `own_backward`.

    Raises:
        InputError: the model rejects the inputs.
        CaptureError: it returns no floating tensor, or no way of tracing gives what eager gives.
    """
    subject = Subject(
        unwrap(module), args, kwargs or {}, dtype=dtype, device=device, seed=seed, own_backward=own_backward
    )
    with isolated(subject.module):
        return _climb(subject)


def _climb(subject: Subject) -> tuple[Graph, Subject, tuple[Check, ...]]:
    subject.run()  # lazy imports and caches happen here, not under the trace
    expected, choices, notes = observe(subject)
    if not any(tensor.is_floating_point() or tensor.is_complex() for tensor in expected):
        raise CaptureError(
            f"the model returns {subject.output_kind}, in which there is no floating-point tensor",
            expected="a tensor, or a tuple, dict or dataclass that holds one",
        )
    reasons: list[str] = []
    for rung in RUNGS:
        try:
            graph = _trace(rung, subject, choices, notes)
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
    raise CaptureError("the model cannot be traced (" + " | ".join(reasons) + ")", remedy=_way_on(subject, choices))


def _way_on(subject: Subject, choices: Choices) -> str:
    """What stands in the way of a trace, as far as it was seen."""
    first, second = ([tensor.clone() for tensor in subject.run()] for _ in range(2))
    if (gap := deviation(first, second)) > 0:
        return (
            f"two runs at the same input differ by {gap:.2g}: seed the generators that forward keeps, "
            "and reset what it keeps from call to call"
        )
    if choices.branches:
        places = ", ".join(choices.branches[:3])
        return f"forward turns values that depend on the input into Python numbers ({places}): keep them tensors"
    if choices.functions and not subject.own_backward:
        return f"--linearisation backward keeps {', '.join(choices.functions)} whole"
    return ""


def _trace(rung: str, subject: Subject, choices: Choices, seen: tuple[str, ...]) -> Graph:
    parameters = list(subject.parameters.values())
    with recorded() if subject.own_backward else nullcontext():
        graph_module = trace(rung, subject, subject.module, parameters, subject.inputs)
    bind_recorded(graph_module)
    torch.manual_seed(subject.seed)
    frozen = freeze_random(graph_module, [*parameters, *subject.inputs])
    drawn = (f"{frozen} random ops replayed with the draws of seed {subject.seed}",) if frozen else ()
    return Graph(
        module=graph_module,
        parameters=subject.parameters,
        inputs=subject.inputs,
        input_names=subject.input_names,
        output_paths=subject.output_paths,
        rung=rung,
        notes=(*drawn, *seen),
        choices=choices,
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
