"""A recurrence along a sequence as time: module and inputs -> Trajectory.

States are h_0, h_1, ... along the inputs that were given, one step per time step, and a step's Jacobian is
dh_{t+1}/dh_t with the input held. A trajectory of thousands of steps holds its states; its Jacobians are linearised
where they are used. What is looked at step by step is its end, at most `WINDOW` steps of what the model itself
does; exponents and memory are measured along all of it (`Trajectory.whole`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dynstab.capture.capture import unwrap
from dynstab.capture.isolate import isolated
from dynstab.capture.trace import tracing_context
from dynstab.capture.verify import deviation, tolerance
from dynstab.core.errors import InputError, StateError, first_line
from dynstab.core.report import Check
from dynstab.linear.agreement import nearby
from dynstab.linear.driven import DrivenMap, RecomputedOperator, Tensors
from dynstab.linear.layout import Layout
from dynstab.linear.operator import JacobianOperator, RelaidOperator
from dynstab.systems.dependence import op_name
from dynstab.systems.kinks import activation_of
from dynstab.systems.samples import find_layouts
from dynstab.systems.time_calls import inner_recurrence
from dynstab.systems.time_layers import cell_recurrence, layer_recurrence
from dynstab.systems.time_recurrence import Bound, Recurrence, finite
from dynstab.systems.time_scan import scan_recurrence
from dynstab.systems.time_step import own_step_recurrence
from dynstab.systems.time_stepper import has_forward, has_step, stepper_recurrence
from dynstab.systems.time_verify import GRADIENT_STEPS, verify_run
from dynstab.systems.trajectory import Activation, State, Step, Trajectory

WINDOW = 100
"""Steps that are looked at one by one."""

GATE = "sigmoid"
"""The kind of an activation that is a gate."""

_BRANCHES = "the step takes another way at other values"


@dataclass(frozen=True, kw_only=True)
class TimeSystem:
    """A recurrence that was run: its trajectory and how far it was verified.

    Attributes:
        recurrence: the step, what drives it and what the model had.
    """

    recurrence: Recurrence
    trajectory: Trajectory
    checks: tuple[Check, ...]


def time_system(
    module: nn.Module,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
    granularity: str = "step",
    states: tuple[str, ...] = (),
    seed: int = 0,
    verify: bool = True,
) -> TimeSystem:
    """Find the recurrence in `module`, run it along its inputs and linearise its steps.

    torch's recurrent layers and cells (stacked, bidirectional, projected), a model around one of them, a part that is
    called again on what it returned (loops over cells, tied blocks, fixed-point iterations), scans of state-space
    layers, modules with a method `step`, and modules whose forward is a step. `granularity` and `states` have
    no meaning here: a step is a step of time.

    Raises:
        InputError: no input, or the module rejects it. StateError: nothing in the module is a recurrence.
    """
    module = unwrap(module)
    with isolated(module), tracing_context():
        torch.manual_seed(seed)
        recurrence = find_recurrence(module, args, dict(kwargs or {}), dtype=dtype, device=device, seed=seed)
        driven = DrivenMap(recurrence.step, recurrence.start, recurrence.at(0))
        if not driven.depends:
            raise StateError(
                f"the next state of {recurrence.name} does not depend on the last one by a derivative",
                expected="a recurrence",
            )
        run = _run(recurrence, driven)
        trajectory = _trajectory(recurrence, driven, run, type(module).__name__)
        checks = verify_run(recurrence, driven, run, trajectory) if verify and trajectory.steps else ()
    return TimeSystem(recurrence=recurrence, trajectory=trajectory, checks=checks)


def find_recurrence(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
    seed: int = 0,
) -> Recurrence:
    """The recurrence that a module is or holds.

    Raises:
        InputError: no input, a script, or nothing that the module takes comes back as a state.
    """
    if isinstance(module, torch.jit.ScriptModule):
        raise InputError(
            "a script keeps its layers and steps from Python",
            expected="the module that it was made of",
            remedy="give that one, e.g. by a factory in a file of Python; --system depth reads some scripts",
        )
    bound, name = Bound(module, dtype, device), type(module).__name__
    args = tuple(bound.cast(each) if isinstance(each, Tensor) else each for each in args)
    kwargs = {key: bound.cast(each) if isinstance(each, Tensor) else each for key, each in kwargs.items()}
    if isinstance(module, nn.RNNBase):
        return layer_recurrence(bound, args, kwargs, name)
    if isinstance(module, nn.RNNCellBase):
        return cell_recurrence(bound, args, kwargs, name)
    if has_step(module):
        return stepper_recurrence(bound, args, name)
    try:
        found = inner_recurrence(bound, args, kwargs)
        rejected = ""
    except InputError:
        raise
    except Exception as error:  # a step given a whole sequence rejects it; one time of it is tried below
        found, rejected = None, f"{type(error).__name__}: {first_line(error)}"
    if found is None and not rejected:
        found = scan_recurrence(bound, args, kwargs, name, seed)
    return found or own_step_recurrence(bound, (*args, *kwargs.values()), name)


def is_recurrent(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a module is one recurrent layer or cell, or little else: an embedding before it, a head after it."""
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)) or (has_step(module) and not has_forward(module)):
        return True
    layers = [each for each in module.modules() if isinstance(each, (nn.RNNBase, nn.RNNCellBase))]
    own = {id(parameter) for layer in layers for parameter in layer.parameters()}
    others = [
        each
        for each in module.modules()
        if any(id(parameter) not in own for parameter in each.parameters(recurse=False))
    ]
    around = (nn.Embedding, nn.Linear, nn.LayerNorm)
    # An LSTM is expressed by scripts and by traces too; these have no Python to watch.
    scripted = isinstance(module, torch.jit.ScriptModule)
    return len(layers) == 1 and not scripted and len(others) <= 3 and all(isinstance(each, around) for each in others)


def _run(recurrence: Recurrence, driven: DrivenMap) -> list[Tensors]:
    """h_0 ... h_T, until a state is not finite; the graph is compared with the step at times 1, 2, 4, 8, ..."""
    states = [recurrence.start]
    with torch.no_grad():
        if driven.captured and not all(_agrees_at(recurrence, driven, point) for point in nearby(recurrence.start)):
            driven.forget(_BRANCHES)
        for time in range(recurrence.length + recurrence.after):
            inputs = recurrence.at(time)
            after = driven(states[-1], inputs)
            if driven.captured and time & (time - 1) == 0 and not _agrees(recurrence, after, states[-1], inputs):
                driven.forget(_BRANCHES)
                after = driven(states[-1], inputs)
            states.append(tuple(tensor.detach() for tensor in after))
            if not finite(states[-1]):
                break
    return states


def _agrees_at(recurrence: Recurrence, driven: DrivenMap, state: Tensors) -> bool:
    try:
        return _agrees(recurrence, driven(state, recurrence.at(0)), state, recurrence.at(0))
    except Exception:  # what the step raises outside of its domain is its own affair
        return True


def _agrees(recurrence: Recurrence, after: Tensors, state: Tensors, inputs: Tensors) -> bool:
    expected = recurrence.step(state, inputs)
    return deviation(list(after), list(expected)) <= tolerance(expected[0].dtype)


def _trajectory(recurrence: Recurrence, driven: DrivenMap, run: list[Tensors], name: str) -> Trajectory:
    """The whole run, and the end of what the model itself does as the trajectory that is looked at."""
    notes = [*recurrence.notes, *recurrence.ending(run)]
    first = 0
    if len(run) > 2 and not any(bool(tensor.any()) for tensor in run[0]) and any(bool(t.any()) for t in run[1]):
        first = 1
        notes.append("the first state is zero and has no size to compare with: the count begins at the second")
    own = min(recurrence.length, len(run) - 1)
    start = max(first, own - WINDOW)
    layout, coupled = _layout(recurrence, driven, run, start)
    route = dict(driven.jacobian(run[-2], recurrence.at(len(run) - 2)).routes)

    def between(low: int, high: int, kept: bool, extra: tuple[str, ...], whole: Trajectory | None) -> Trajectory:
        times = range(low, high)
        return Trajectory(
            kind="time",
            time_unit="step",
            states=tuple(
                State(index=i, name=_state_name(t, recurrence), value=run[t], layout=layout)
                for i, t in enumerate(range(low, high + 1))
            ),
            steps=tuple(_step(i, t, recurrence, driven, run, layout, kept) for i, t in enumerate(times)),
            samples=layout.samples,
            coupled=coupled,
            rung=driven.rung,
            notes=(*notes, *extra),
            routes=route,
            whole=whole,
            held=recurrence.held,
        )

    last = len(run) - 1
    if (start, own) == (first, last):
        return between(first, last, True, (), None)
    whole = between(first, last, False, (), None)
    told = f"steps {start} to {own} are looked at one by one; exponents and memory are those of {last - first} steps"
    return between(start, own, True, (told,), whole)


def _state_name(time: int, recurrence: Recurrence) -> str:
    return f"{recurrence.name} t={time}"


def _step(
    index: int, time: int, recurrence: Recurrence, driven: DrivenMap, run: list[Tensors], layout: Layout, kept: bool
) -> Step:
    inputs = recurrence.at(time)
    jacobian: JacobianOperator
    if kept:
        jacobian = RelaidOperator(driven.jacobian(run[time], inputs), layout, layout)
    else:
        jacobian = RecomputedOperator(driven, run[time], inputs, layout)
    return Step(
        index=index,
        name=_state_name(time + 1, recurrence),
        kind="plain",
        source=index,
        target=index + 1,
        jacobian=jacobian,
        function=lambda tensors: driven(tensors, inputs),
        activations=_activations(recurrence, driven, run[time], inputs) if kept else (),
        parameters=recurrence.parameters,
    )


def _activations(recurrence: Recurrence, driven: DrivenMap, state: Tensors, inputs: Tensors) -> tuple[Activation, ...]:
    """Those with a kink, and the gates: sigmoids, by the names that the layer gives them."""
    values = driven.values(state, inputs)
    sigmoids = [(node, node.all_input_nodes[0]) for node in values if op_name(node) == "sigmoid"]
    named = len(sigmoids) == len(recurrence.gates)
    gates = [
        Activation(name=recurrence.gates[i] if named else "gate", kind=GATE, input=values[before], output=values[node])
        for i, (node, before) in enumerate(sigmoids)
    ]
    return (*gates, *(found for node in values if (found := activation_of(node, values))))


def _layout(recurrence: Recurrence, driven: DrivenMap, run: list[Tensors], start: int) -> tuple[Layout, bool]:
    """Which dimension counts the inputs, tested by tangents over a few steps."""
    dim = recurrence.sample_dim
    axis = None if dim is None else (dim, run[0][0].shape[dim])
    stop = min(start + GRADIENT_STEPS, len(run) - 1)
    pushes = [driven.jacobian(run[t], recurrence.at(t)).push_tensors for t in range(start, stop)]
    layouts, coupled = find_layouts(run[start : stop + 1], pushes, axis)
    return layouts[0], coupled
