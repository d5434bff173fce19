"""The orbit of a vector field: solver steps in place of the steps of a map."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dynstab.core.errors import ConfigError, InputError
from dynstab.estimators.stepped_orbit import Context, States, SteppedOrbit, check_state, first_call
from dynstab.linear.adaptive import StepControl
from dynstab.linear.family import MapFamily
from dynstab.linear.operator import JacobianOperator
from dynstab.linear.runge_kutta import METHODS, runge_kutta_step, stage_times

VectorField = Callable[[Tensor, Tensor], Tensor]

_REMEDY = "for a field f(x) give lambda t, x: f(x); for a map f(x) leave time= out"
_RTOL, _ATOL = 1e-8, 1e-10
_MOST_SUBSTEPS = 1000


class FlowOrbit(SteppedOrbit):
    """x' = f(t, x), one step of length `time_step` after another.

    euler, midpoint and rk4 take `time_step` at once. dopri5 takes as many steps inside it as keep the error
    of each below 1e-8 |x| + 1e-10 (root mean square); in float32 below 1e-6 |x| + 1e-8.

    Args:
        field: of a time without dimensions and a state. dt: `time_step`. start: the time at the beginning.
        samples: see `SteppedOrbit`. held: steps of one length by dopri5 too.

    Attributes:
        adaptive: whether the solver chooses its steps. time: of the present state.
        failure: why there is no going on, empty while there is.

    Raises:
        InputError: the state is not a floating-point tensor, or the field does not answer in its shape and dtype.
        ConfigError: no such method, or dopri5 for several trajectories.
    """

    unit = "nat/time"

    def __init__(
        self,
        field: VectorField,
        state: Tensor,
        *,
        dt: float,
        method: str,
        start: float = 0.0,
        samples: int | None = None,
        held: bool = False,
    ) -> None:
        _check(field, state, method, samples or 1)
        super().__init__(self._solver_step, state, samples=samples)
        self._began = start
        self.time_step, self.time, self.failure = dt, start, ""
        self._field, self._tableau = field, METHODS[method]
        self.adaptive = bool(self._tableau.error) and not held
        slack = 1.0 if state.dtype == torch.float64 else 100.0
        self._control = StepControl(self._tableau, slack * _RTOL, slack * _ATOL, step=dt, most=_MOST_SUBSTEPS)
        self._family = MapFamily(lambda x, p: (self._solver_step(x[0], *p),))

    @property
    def order(self) -> int:
        """Of the solver: its error is O(dt^order)."""
        return self._tableau.order

    def in_steps(self, fraction: float) -> FlowOrbit:
        """The same orbit from here on, in steps of one length: so much of the one that the solver takes now."""
        return FlowOrbit(
            self._field,
            self.state,
            dt=fraction * (min(self.time_step, self._control.step) if self.adaptive else self.time_step),
            method=self._tableau.name,
            start=self.time,
            samples=self.samples if len(self.shape) < self._state.ndim else None,
            held=True,
        )

    def divergence(self, step: int) -> str:
        return self.failure or f"blew up at t = {self._began + step * self.time_step:.6g}"

    def compile(self, steps: int, k: int, *, every: int = 0) -> None:
        if self.adaptive:
            raise ConfigError(
                f"compile=True with method={self._tableau.name!r}",
                expected="steps of one length",
                remedy="compile serves rk4, midpoint and euler",
            )
        super().compile(steps, k, every=every)

    def _arrive(self, states: States, steps: int) -> None:
        super()._arrive(states, steps)
        self.time += steps * self.time_step

    def _operator(self, x: Tensor, context: Context) -> tuple[Tensor, JacobianOperator]:
        (after,), operator = self._family((x,), context)
        return after, operator

    def _solver_step(self, x: Tensor, times: Tensor, length: Tensor) -> Tensor:
        step = length if self.adaptive else self.time_step
        return runge_kutta_step(self._fields, self._tableau, (x,), times, step)[0]

    def _fields(self, time: Tensor, x: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (self._field(time, x[0]),)

    def _contexts(self, steps: int) -> list[Context]:
        """Times of the stages and the length of each of the solver's steps; NaN where there is no going on."""
        if not self.adaptive:
            return [self._numbers(self.time + i * self.time_step, self.time_step) for i in range(steps)]
        attempts = self._control.attempts(self._fields, (self._state,), self.time, self.time + self.time_step)
        found = [self._numbers(each.start, each.step) for each in attempts if each.accepted]
        if self._control.failure:
            self.failure = self._control.failure
            return [self._numbers(math.nan, math.nan)]
        return found

    def _numbers(self, start: float, length: float) -> Context:
        like = self._state.new_tensor
        return like(stage_times(self._tableau, start, length)), like(length)


def _check(field: VectorField, state: Tensor, method: str, samples: int) -> None:
    check_state(state)
    if method not in METHODS:
        raise ConfigError(f"method={method!r}", expected=" or ".join(map(repr, METHODS)))
    if samples > 1 and METHODS[method].error:
        raise ConfigError(
            f"method={method!r} for {samples} trajectories at once",
            expected="steps of one length: each trajectory would choose its own",
            remedy="take 'rk4', or each trajectory by itself",
        )
    slope = first_call(field, state.new_tensor(0.0), state, remedy=_REMEDY)
    if not isinstance(slope, Tensor) or slope.shape != state.shape or slope.dtype != state.dtype:
        got = f"{tuple(slope.shape)} {slope.dtype}" if isinstance(slope, Tensor) else type(slope).__name__
        raise InputError(
            f"the field gives {got} for a state {tuple(state.shape)} {state.dtype}",
            expected="a function f(t, x) that returns dx/dt in the shape and dtype of x",
        )
