"""The differential equations that a model hands to torchdiffeq, seen while it does.

Every call of odeint, odeint_adjoint and torchcde's cdeint, by whatever name a model holds them, makes a solver
out of torchdiffeq's table of solvers. While a model is watched, that table holds the same solvers with a
note-taker in front.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dynstab.capture.subject import one_line
from dynstab.linear.runge_kutta import Tensors
from dynstab.systems.flow_methods import FIXED, solvers

MOST_ATTEMPTS = 4000
"""The solver itself may go on: what stops here is the analysis."""

_GIVEN_UP = {
    "underflow in dt": "the step size underflowed",
    "non-finite values": "the state became infinite or NaN",
    "max_num_steps": "max_num_steps was not enough",
}


def in_words(error: BaseException) -> str:
    """Why torchdiffeq gave up; another error in one line."""
    given = one_line(error)
    return next((words for sign, words in _GIVEN_UP.items() if sign in given), given)


class Enough(BaseException):
    """Ends a watched run: what was to be seen was seen. No model's own `except Exception` catches it."""


class _TooLong(BaseException):
    """Ends a solve after too many attempts."""


@dataclass
class Seen:
    """One solve: the problem, and the attempts as the solver reports them.

    Attributes:
        base: the field as the model wrote it. shapes: of the tensors of its state, None for a single one.
        backwards: the solver sees times with their sign changed. adjoint: odeint_adjoint called it.
        parameters: of a field that is no module. first: size of the first attempt. slope: what the field gave last.
        event: what ended the interval.
    """

    method: str
    base: Callable[..., Any]
    shapes: list[torch.Size] | None
    backwards: bool
    adjoint: bool
    initial: Tensor
    settings: dict[str, Any]
    adjoint_settings: dict[str, Any] = field(default_factory=dict)
    parameters: Iterable[Tensor] = ()
    times: Tensor = field(default_factory=lambda: torch.zeros(0))
    accepted: list[tuple[float, float, Tensor, int]] = field(default_factory=list)
    first: float | None = None
    waiting: int = 0
    rejected: int = 0
    attempts: int = 0
    calls: int = 0
    slope: Tensor | None = None
    event: bool = False
    failure: str = ""
    answer: Tensor | None = None

    def accept(self, time: Tensor, state: Tensor, size: Tensor) -> None:
        sign = -1.0 if self.backwards else 1.0
        self.accepted.append((sign * float(time), sign * float(size), state.detach(), self.waiting))
        self.waiting = 0

    def reject(self) -> None:
        self.waiting, self.rejected = self.waiting + 1, self.rejected + 1

    def attempt(self, size: Tensor) -> None:
        self.attempts += 1
        self.first = self.first or abs(float(size))
        if self.attempts > MOST_ATTEMPTS:
            raise _TooLong

    def reason(self, error: BaseException) -> str:
        """In words, why there is no solution."""
        if isinstance(error, _TooLong):
            return f"the {MOST_ATTEMPTS} attempts that dynstab follows were not enough"
        # No step is small enough for a tolerance on NaN: the solver speaks of the step alone.
        finite = self.slope is None or bool(self.slope.isfinite().all())
        return in_words(error) if finite else "the field became infinite or NaN"

    def tensors(self, flat: Tensor) -> Tensors:
        """A solver's flat state as the tensors that the field takes."""
        if self.shapes is None:
            return (flat,)
        parts = flat.split([shape.numel() for shape in self.shapes])
        return tuple(part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True))

    def field(self, time: Tensor, x: Tensors) -> Tensors:
        answer = self.base(time, x[0] if self.shapes is None else x)
        return (answer,) if isinstance(answer, Tensor) else tuple(answer)


@dataclass
class Watch:
    """Solves in the order in which a model asked for them.

    Attributes:
        visit: called in the midst of the run, once solve number `wanted` is done; what it solves itself is no part of
            the run.
    """

    wanted: int | None = None
    visit: Callable[[Seen], None] | None = None
    seen: list[Seen] = field(default_factory=list)
    visiting: bool = False

    def solved(self, seen: Seen) -> None:
        if self.visit is not None and len(self.seen) - 1 == self.wanted:
            self.visiting = True
            self.visit(seen)
            raise Enough


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """torchdiffeq's solvers take notes for the duration.

    Raises:
        StateError: torchdiffeq is of a kind that has no table of solvers.
    """
    table = solvers()
    saved = dict(table)
    try:
        for name, solver in saved.items():
            table[name] = _watched(name, solver, watch)
        yield
    finally:
        table.update(saved)


def _watched(name: str, solver: Any, watch: Watch) -> type:
    class Watched(solver):
        def __init__(self, func: Any, y0: Tensor, **settings: Any) -> None:
            self.seen = _notes(name, func, y0, settings)
            self.unwatched = lambda: solver(func=func, y0=y0, **settings)
            super().__init__(func=_Reporting(func, self.seen), y0=y0, **settings)

        def integrate(self, t: Tensor) -> Tensor:
            notes = self.seen
            notes.times = -t.detach() if notes.backwards else t.detach()
            watch.seen.append(notes)
            try:
                answer = super().integrate(t)
            except (AssertionError, _TooLong) as error:  # torchdiffeq's ways of giving up, and ours
                notes.failure = notes.reason(error)
                watch.solved(notes)
                if not isinstance(error, _TooLong):
                    raise
                raise (RuntimeError(notes.failure) if watch.visiting else Enough()) from error
            notes.answer = answer[-1].detach()
            watch.solved(notes)
            return answer

        def integrate_until_event(self, t0: Tensor, event_fn: Any) -> tuple[Tensor, Tensor]:
            time, answer = self.unwatched().integrate_until_event(t0, event_fn)
            # Up to the event, at a time that is held, it is an integral as any other.
            self.seen.event = True
            self.integrate(torch.stack([t0.to(time), time.detach()]))
            return time, answer

    return Watched


def _notes(name: str, func: Any, y0: Tensor, settings: dict[str, Any]) -> Seen:
    """What torchdiffeq's wrappers around a field say of it, and the settings of an adjoint call further up."""
    base, shapes, backwards, layers = func, None, False, 0
    while hasattr(base, "base_func"):
        layers += type(base).__name__ == "_PerturbFunc"
        backwards |= type(base).__name__ == "_ReverseFunc"
        shapes = getattr(base, "shapes", shapes)
        base = base.base_func
    return Seen(
        method=name,
        base=base,
        shapes=shapes,
        backwards=backwards,
        adjoint=layers > 1,
        initial=y0.detach(),
        settings=settings,
        adjoint_settings=_adjoint_settings() if layers > 1 else {},
    )


def _adjoint_settings() -> dict[str, Any]:
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_name != "odeint_adjoint":
        frame = frame.f_back
    names = ("adjoint_rtol", "adjoint_atol", "adjoint_method")
    return {name: frame.f_locals[name] for name in names if name in frame.f_locals} if frame else {}


class _Reporting:
    """The field as a solver sees it: counts its calls, and passes the solver's own reports on."""

    def __init__(self, func: Any, notes: Seen) -> None:
        self._func, self._notes = func, notes
        self._fixed = notes.method in FIXED

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._notes.calls += 1
        slope = self._func(*args, **kwargs)
        self._notes.slope = slope.detach()
        return slope

    def callback_step(self, t0: Tensor, y0: Tensor, dt: Tensor) -> None:
        self._notes.attempt(dt)
        if self._fixed:
            self._notes.accept(t0, y0, dt)
        self._func.callback_step(t0, y0, dt)

    def callback_accept_step(self, t0: Tensor, y0: Tensor, dt: Tensor) -> None:
        self._notes.accept(t0, y0, dt)
        self._func.callback_accept_step(t0, y0, dt)

    def callback_reject_step(self, t0: Tensor, y0: Tensor, dt: Tensor) -> None:
        self._notes.reject()
        self._func.callback_reject_step(t0, y0, dt)
