"""The orbit of a vector field: solver steps in place of the steps of a map."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dynstab.core.errors import CaptureError, ConfigError, InputError
from dynstab.linear.adaptive import StepControl
from dynstab.linear.family import MapFamily
from dynstab.linear.layout import Layout
from dynstab.linear.operator import JacobianOperator
from dynstab.linear.runge_kutta import METHODS, runge_kutta_step, stage_times
from dynstab.linear.tangent_program import TangentProgram

VectorField = Callable[[Tensor, Tensor], Tensor]
Substep = tuple[Tensor, Tensor]
"""Times of the stages, and the length."""

_RTOL, _ATOL = 1e-8, 1e-10
_MOST_SUBSTEPS = 1000


class FlowOrbit:
    """x' = f(t, x), one step of length `time_step` after another.

    euler, midpoint and rk4 take `time_step` at once. dopri5 takes as many steps inside it as keep the error
    of each below 1e-8 |x| + 1e-10 (root mean square); in float32 below 1e-6 |x| + 1e-8.

    Attributes:
        time: of the present state. failure: why there is no going on, empty while there is.

    Raises:
        InputError: the state is not a floating-point tensor, or the field does not answer in its shape and dtype.
        ConfigError: no such method.
    """

    unit = "nat/time"

    def __init__(self, field: VectorField, state: Tensor, *, dt: float, method: str, start: float = 0.0) -> None:
        _check(field, state, method)
        self.time_step, self.time, self.failure = dt, start, ""
        self._field, self._tableau, self._state = field, METHODS[method], state.detach().clone()
        self._pending: _OrbitStep | None = None
        slack = 1.0 if state.dtype == torch.float64 else 100.0
        self._control = StepControl(self._tableau, slack * _RTOL, slack * _ATOL, step=dt, most=_MOST_SUBSTEPS)
        self._programs: dict[int, TangentProgram | None] = {}
        self._family = MapFamily(lambda x, p: (self._step(x[0], *p),))

    @property
    def state(self) -> Tensor:
        """The last one. A step that was linearised and not pushed yet is taken first."""
        if self._pending is not None:
            self._arrive(self._taken(self._state, self._pending.substeps))
        return self._state

    @torch.no_grad()
    def advance(self) -> None:
        self._arrive(self._taken(self.state, self._substeps()))

    def linearised(self) -> JacobianOperator:
        """The next step; the state moves on when it is pushed, for state and tangents come together."""
        self._pending = _OrbitStep(self, self.state, self._substeps())
        return self._pending

    @torch.no_grad()
    def push(self, step: _OrbitStep, tangents: Tensor) -> Tensor:
        """(k, *shape) tangents through a step of this orbit."""
        x = step.before
        for times, length in step.substeps:
            program = self._program(tangents.shape[0], (x, times, length))
            if program is not None:
                x, tangents = program(x, times, length, tangents)
            else:
                (x,), operator = self._family_at(x, times, length)
                tangents = operator.push(tangents)
        if step is self._pending:
            self._arrive(x)
        return tangents

    @torch.no_grad()
    def pull(self, step: _OrbitStep, cotangents: Tensor) -> Tensor:
        """(k, *shape) cotangents back through a step of this orbit."""
        operators, x = [], step.before
        for times, length in step.substeps:
            (x,), operator = self._family_at(x, times, length)
            operators.append(operator)
        for operator in reversed(operators):
            cotangents = operator.pull(cotangents)
        return cotangents

    def _arrive(self, state: Tensor) -> None:
        self._state, self._pending = state, None
        self.time += self.time_step

    def _family_at(self, x: Tensor, times: Tensor, length: Tensor) -> tuple[tuple[Tensor, ...], JacobianOperator]:
        return self._family((x,), (times, length))

    def _program(self, k: int, example: tuple[Tensor, ...]) -> TangentProgram | None:
        if k not in self._programs:
            try:
                self._programs[k] = TangentProgram(self._step, example, k)
            except (CaptureError, InputError):  # a field that branches on values, say
                self._programs[k] = None
        return self._programs[k]

    @torch.no_grad()
    def _taken(self, x: Tensor, substeps: list[Substep]) -> Tensor:
        for times, length in substeps:
            x = self._step(x, times, length)
        return x

    def _step(self, x: Tensor, times: Tensor, length: Tensor) -> Tensor:
        step = length if self._tableau.error else self.time_step
        return runge_kutta_step(self._fields, self._tableau, (x,), times, step)[0]

    def _fields(self, time: Tensor, x: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (self._field(time, x[0]),)

    def _substeps(self) -> list[Substep]:
        """The solver's steps that make up the next one; a single one to NaN where there is no going on."""
        if not self._tableau.error:
            return [self._numbers(self.time, self.time_step)]
        attempts = self._control.attempts(self._fields, (self._state,), self.time, self.time + self.time_step)
        found = [self._numbers(each.start, each.step) for each in attempts if each.accepted]
        if self._control.failure:
            self.failure = self._control.failure
            return [self._numbers(math.nan, math.nan)]
        return found

    def _numbers(self, start: float, length: float) -> Substep:
        like = self._state.new_tensor
        return like(stage_times(self._tableau, start, length)), like(length)


class _OrbitStep(JacobianOperator):
    """One step of an orbit from `before`, linearised when it is pushed."""

    def __init__(self, orbit: FlowOrbit, before: Tensor, substeps: list[Substep]) -> None:
        layout = Layout(shapes=(before.shape,))
        super().__init__(layout, layout, before.dtype, before.device)
        self._orbit, self.before, self.substeps = orbit, before, substeps

    def push_tensors(self, tangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (self._orbit.push(self, tangents[0]),)

    def pull_tensors(self, cotangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (self._orbit.pull(self, cotangents[0]),)


def _check(field: VectorField, state: Tensor, method: str) -> None:
    if not isinstance(state, Tensor) or not state.is_floating_point():
        got = str(state.dtype) if isinstance(state, Tensor) else type(state).__name__
        raise InputError(f"the state is of type {got}", expected="a floating-point tensor")
    if method not in METHODS:
        raise ConfigError(f"method={method!r}", expected=" or ".join(map(repr, METHODS)))
    with torch.no_grad():
        slope = field(state.new_tensor(0.0), state)
    if not isinstance(slope, Tensor) or slope.shape != state.shape or slope.dtype != state.dtype:
        got = f"{tuple(slope.shape)} {slope.dtype}" if isinstance(slope, Tensor) else type(slope).__name__
        raise InputError(
            f"the field gives {got} for a state {tuple(state.shape)} {state.dtype}",
            expected="a function f(t, x) that returns dx/dt in the shape and dtype of x",
        )
