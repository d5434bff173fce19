"""A differential equation as a trajectory: what a model hands to torchdiffeq, or a vector field itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dynstab.capture.capture import unwrap
from dynstab.capture.subject import Subject
from dynstab.core.report import Check
from dynstab.systems.flow_methods import installed
from dynstab.systems.flow_problem import Problem, Solution
from dynstab.systems.flow_sources import running, source_of, without_time
from dynstab.systems.flow_trajectory import flow_trajectory
from dynstab.systems.flow_verify import flow_checks
from dynstab.systems.flow_watch import Enough, Watch, watching
from dynstab.systems.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class FlowSystem:
    """A solved differential equation: its trajectory and how far it is the model's own."""

    trajectory: Trajectory
    checks: tuple[Check, ...]


def flow_system(
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
) -> FlowSystem:
    """The differential equation that `module(*args, **kwargs)` solves, along its solver's accepted steps.

    The integral with the most steps is taken, by torchdiffeq's odeint or odeint_adjoint, or torchcde's cdeint. A
    module that solves none is read as a vector field f(t, x), or f(x), of its input, and integrated from 0 to 1.
    Where the solver accepted no step, the initial state is all there is.
    `granularity` and `states` say nothing here: the solver's steps are the states.

    Raises:
        InputError: the model rejects the inputs.
        ConfigError: no differential equation is solved and the module is no vector field.
    """
    args = without_time(unwrap(module), args)
    subject = Subject(unwrap(module), args, kwargs or {}, dtype=dtype, device=device, seed=seed)
    source = source_of(subject)

    def build(problem: Problem, solution: Solution) -> FlowSystem:
        trajectory = flow_trajectory(problem, solution, source, compare=verify)
        return FlowSystem(trajectory=trajectory, checks=flow_checks(trajectory) if verify else ())

    return source.visit(build)


def solves_equations(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether forward hands a differential equation to torchdiffeq. Asked only of models that imported it."""
    if installed() is None:
        return False
    watch = Watch(wanted=0, visit=lambda seen: None)
    try:
        subject = Subject(unwrap(module), args, kwargs)
        with running(subject), watching(watch):
            # A forward that writes into its inputs must not find the user's.
            subject.forward(list(subject.parameters.values()), [tensor.clone() for tensor in subject.inputs])
    except (Exception, SystemExit, Enough):  # what forward raises is for whoever analyses it to say
        pass
    return bool(watch.seen)
