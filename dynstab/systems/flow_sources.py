"""Where a differential equation lives: in the midst of a model's forward, or in a module that is a vector field."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dynstab.capture.isolate import isolated
from dynstab.capture.subject import Subject, one_line
from dynstab.capture.trace import tracing_context
from dynstab.core.errors import ConfigError, InputError
from dynstab.linear.runge_kutta import DOPRI5, Field, Tensors
from dynstab.systems.flow_gradients import gradients
from dynstab.systems.flow_methods import installed
from dynstab.systems.flow_observed import problem_of
from dynstab.systems.flow_problem import Gradients, Problem, Solution, solve
from dynstab.systems.flow_watch import Enough, Seen, Watch, watching

R = TypeVar("R")


@contextmanager
def running(subject: Subject) -> Iterator[None]:
    """Where the model may run: it and its surroundings come back as they were."""
    with isolated(subject.module), tracing_context(), torch.enable_grad():
        yield


def source_of(subject: Subject) -> WatchedSource | PlainSource:
    if _is_plain(subject):
        return PlainSource(subject)
    outputs = None if installed() else subject.run()  # forward may be what imports torchdiffeq
    if installed() is not None:
        watched = WatchedSource.of(subject)
        if watched is not None:
            return watched
    outputs = outputs or subject.run()
    if len(outputs) == 1 and len(subject.inputs) == 1 and outputs[0].shape == subject.inputs[0].shape:
        return PlainSource(subject)
    raise ConfigError(
        "forward solves no differential equation (no call of torchdiffeq's odeint was seen)",
        expected="a model that calls odeint, odeint_adjoint or cdeint, or a vector field f(t, x) of its input",
        remedy="use --system depth for anything else; torchdiffeq comes with pip install dynstab[ode]",
    )


def without_time(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of a vector field f(t, x) without the time, if one was given: the interval is ours to choose."""
    first = args[0] if len(args) == 2 and _needed(module) == 2 else None
    time = isinstance(first, (int, float)) or (isinstance(first, Tensor) and first.ndim == 0)
    return args[1:] if time else args


def _is_plain(subject: Subject) -> bool:
    """forward takes a time and a state, and one tensor was given."""
    return _needed(subject.module) == 2 and len(subject.inputs) == 1


def _needed(module: nn.Module) -> int | None:
    """How many positional arguments forward cannot do without; None where it does not say."""
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is inspect.Parameter.empty for p in parameters)


@dataclass(frozen=True)
class WatchedSource:
    """The integral number `wanted` of a model's forward."""

    subject: Subject
    wanted: int
    count: int

    @classmethod
    def of(cls, subject: Subject) -> WatchedSource | None:
        """The one with the most accepted steps; None where forward solves nothing.

        Raises:
            InputError: forward raised, and no solver of its was at work.
            ConfigError: the state is complex.
        """
        watch = Watch()
        try:
            with running(subject), watching(watch):
                subject.forward(subject.differentiable(), subject.inputs)
        except Enough:
            pass
        except Exception as error:
            if not (watch.seen and watch.seen[-1].failure):
                got = f"the model rejects the input: {one_line(error)}"
                raise InputError(got, remedy="give inputs that its forward accepts, e.g. --input randn:8,2") from error
        if not watch.seen:
            return None
        wanted = max(range(len(watch.seen)), key=lambda i: len(watch.seen[i].accepted))
        if (dtype := watch.seen[wanted].initial.dtype).is_complex:
            raise ConfigError(
                f"the state of the differential equation is of type {dtype}",
                expected="a real state",
                remedy="integrate torch.view_as_real(z), and take torch.view_as_complex inside the field",
            )
        return cls(subject, wanted, len(watch.seen))

    @property
    def _notes(self) -> tuple[str, ...]:
        several = f"forward solves {self.count} differential equations: number {self.wanted + 1} takes the most steps"
        return (several,) if self.count > 1 else ()

    def visit(self, action: Callable[[Problem, Solution], R]) -> R:
        found: list[R] = []

        def act(seen: Seen) -> None:
            with torch.no_grad():
                problem, solution = problem_of(seen)
                found.append(action(replace(problem, notes=(*self._notes, *problem.notes)), solution))

        try:
            with running(self.subject), watching(Watch(wanted=self.wanted, visit=act)):
                self.subject.forward(self.subject.differentiable(), self.subject.inputs)
        except Enough:
            pass
        return found[0]


@dataclass(frozen=True)
class PlainSource:
    """A module that is a vector field, from 0 to 1 by our own dopri5."""

    subject: Subject

    def visit(self, action: Callable[[Problem, Solution], R]) -> R:
        subject = self.subject
        timed = _is_plain(subject)
        named = dict(zip(subject.parameters, subject.differentiable(), strict=True))

        def field(time: Tensor, x: Tensors) -> Tensors:
            given = (time, *x) if timed else x
            return (functional_call(subject.module, named, given),)

        rtol, atol = _tolerances(subject.inputs[0].dtype)
        problem = Problem(
            field=field,
            initial=subject.inputs,
            start=0.0,
            end=1.0,
            solver="dopri5",
            tableau=DOPRI5,
            adaptive=True,
            rtol=rtol,
            atol=atol,
            source="dynstab",
            gradients=self._gradients(field, list(named.values())),
            notes=(
                f"forward is read as the vector field dx/dt = f({'t, ' if timed else ''}x) of its input and integrated "
                "from t = 0 to 1 by dopri5",
            ),
        )
        with isolated(subject.module), tracing_context(), torch.no_grad():
            _check_field(problem)
            return action(problem, solve(problem))

    def _gradients(self, field: Field, parameters: list[Tensor]) -> Callable[[], Gradients] | None:
        if importlib.util.find_spec("torchdiffeq") is None:
            return None
        (x,) = self.subject.inputs
        rtol, atol = _tolerances(x.dtype)
        seen = Seen(
            method="dopri5",
            base=lambda time, state: field(time, (state,))[0],
            shapes=None,
            backwards=False,
            adjoint=False,
            initial=x,
            settings={"rtol": rtol, "atol": atol},
            parameters=parameters,
            times=x.new_tensor([0.0, 1.0]),
        )
        return lambda: gradients(seen)


def _tolerances(dtype: torch.dtype) -> tuple[float, float]:
    """rtol and atol of a field that comes without a solver."""
    return (1e-8, 1e-10) if dtype == torch.float64 else (1e-5, 1e-7)


def _check_field(problem: Problem) -> None:
    (x,) = problem.initial
    try:
        (slope,) = problem.field(x.new_tensor(0.0), problem.initial)
    except Exception as error:
        raise InputError(f"the vector field rejects the state {tuple(x.shape)}: {one_line(error)}") from error
    if not isinstance(slope, Tensor) or slope.shape != x.shape or slope.dtype != x.dtype:
        got = f"{tuple(slope.shape)} {slope.dtype}" if isinstance(slope, Tensor) else type(slope).__name__
        raise ConfigError(
            f"as a vector field the module gives {got} for a state {tuple(x.shape)} {x.dtype}",
            expected="dx/dt in the shape and dtype of x",
        )
