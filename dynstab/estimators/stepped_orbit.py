"""An orbit made of steps x -> f(x, context): its state and its tangents come together, step by step or in stretches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dynstab.core.errors import CaptureError, ConfigError, DynstabError, InputError, first_line
from dynstab.estimators.frame_walk import Stretch
from dynstab.linear.agreement import check_derivative
from dynstab.linear.compiled_steps import CompiledSteps
from dynstab.linear.layout import Layout
from dynstab.linear.operator import JacobianOperator
from dynstab.linear.tangent_program import TangentProgram

Context = tuple[Tensor, ...]
States = Tensor | Sequence[Tensor]
"""(steps, *shape), or a tensor for each."""


def check_state(state: object) -> None:
    """Raises InputError for what is no floating-point tensor with an entry."""
    if not isinstance(state, Tensor):
        raise InputError(
            f"the state is of type {type(state).__name__}",
            expected="a floating-point tensor",
            remedy="torch.tensor([0.1, 0.2]) makes one of numbers",
        )
    if not state.is_floating_point():
        raise InputError(
            f"the state is of type {state.dtype}",
            expected="a floating-point tensor",
            remedy="give the real one of torch.view_as_real" if state.is_complex() else "give it as .double()",
        )
    if not state.numel():
        raise InputError(f"the state has no entries, shape {tuple(state.shape)}", expected="one at least")


def first_call(function: Callable[..., Any], *arguments: Tensor, remedy: str) -> Any:
    """What it returns; where it raises, an InputError that says so."""
    try:
        with torch.no_grad():
            return function(*arguments)
    except DynstabError:
        raise
    except Exception as error:
        raise InputError(
            f"the function rejects a state of shape {tuple(arguments[-1].shape)} "
            f"({type(error).__name__}: {first_line(error)[:160]})",
            expected=f"a function of {'t and x' if len(arguments) > 1 else 'x'}",
            remedy=remedy,
        ) from error


class SteppedOrbit(ABC):
    """One step after another, each made of one substep or several, x -> f(x, *context).

    Args:
        samples: trajectories that the state holds along its first dimension, each of which goes its own way; None
            where the state is one trajectory's.

    Attributes:
        samples: trajectories. shape: of the state of one. layout: of all of them.
        stretch: steps that are compiled into one, see `compile`; 0 where none are. every: of these steps, those
            between two eliminations; 0 where there are none inside.
        visited: the states of the last step or stretch, without the one that it began at.
    """

    time_step: float
    unit: str

    def __init__(self, step: Callable[..., Tensor], state: Tensor, *, samples: int | None = None) -> None:
        self._step, self._state = step, state.detach().clone()
        self.samples, self.shape = samples or 1, state.shape if samples is None else state.shape[1:]
        self.layout = Layout(shapes=(state.shape,), samples=self.samples, sample_dims=(0,))
        self._start = self._state
        self.visited: States = ()
        self.stretch = self.every = 0
        self._checked = False
        self._held: Tensor | None = None
        self._pending: OrbitStep | None = None
        self._programs: dict[int, TangentProgram | None] = {}
        self._compiled: CompiledSteps | None = None

    @property
    def state(self) -> Tensor:
        """The last one. A step that was linearised and not pushed yet is taken first."""
        if self._pending is not None:
            self._arrive((self._taken(self._state, self._pending.contexts),), self._pending.steps)
        return self._state

    def divergence(self, step: int) -> str:
        """In words, that a trajectory is not finite after so many steps."""
        return f"diverged at step {step}"

    def hold(self, samples: Tensor) -> None:
        """Put these trajectories, (samples,) bool, back to their start, now and after every step from now on."""
        self._held = samples.reshape(-1, *[1] * (self._state.ndim - 1))
        self._state = torch.where(self._held, self._start, self.state)

    @torch.no_grad()
    def advance(self) -> None:
        """One step on, without tangents."""
        self._arrive((self._taken(self.state, self._contexts(1)),), 1)

    def linearised(self, steps: int = 1) -> JacobianOperator:
        """The next step, or all of a stretch; the state moves on when it is pushed."""
        self._pending = OrbitStep(self, self.state, self._contexts(steps), steps)
        return self._pending

    def compile(self, steps: int, k: int, *, every: int = 0) -> None:
        """Compile so many steps with k tangents into one, of which stretches are made.

        Args:
            every: steps between two eliminations of the columns inside; 0 is none.

        Raises:
            ConfigError: they cannot be compiled.
        """
        state, contexts = self.state, self._contexts(steps)
        program = self._program((state, *contexts[0]), k)
        if program is None:
            raise ConfigError(
                "compile=True: the step branches on values, or cannot be captured",
                expected="a step of torch operations alone",
                remedy="write the branch with torch.where, or leave compile out",
            )
        self._compiled = CompiledSteps(self._step, state, contexts, program, self.layout, every=every)
        self.stretch, self.every = steps, every

    @torch.no_grad()
    def push(self, step: OrbitStep, tangents: Tensor) -> Tensor:
        """(k, *shape) tangents through a step of this orbit."""
        compiled = self._compiled
        if compiled is not None and step.steps >= max(2, self.stretch) and tangents.shape[0] == compiled.k:
            step.states, tangents, step.factors = compiled(step.before, step.contexts, tangents)
        else:
            x, passed = step.before, []
            for context in step.contexts:
                x, tangents = self._pushed(x, context, tangents)
                passed.append(x)
            step.states = passed[-step.steps :]
        if step is self._pending:
            self._arrive(step.states, step.steps)
        return tangents

    @torch.no_grad()
    def pull(self, step: OrbitStep, cotangents: Tensor) -> Tensor:
        """(k, *shape) cotangents back through a step of this orbit."""
        operators, x = [], step.before
        for context in step.contexts:
            x, operator = self._operator(x, context)
            operators.append(operator)
        for operator in reversed(operators):
            cotangents = operator.pull(cotangents)
        return cotangents

    @abstractmethod
    def _contexts(self, steps: int) -> list[Context]:
        """Of the substeps that the next steps are made of; one for each step where `steps` is not 1."""

    @abstractmethod
    def _operator(self, x: Tensor, context: Context) -> tuple[Tensor, JacobianOperator]:
        """f(x, *context) and the Jacobian there, where there is no straight line of calls for them."""

    def _arrive(self, states: States, steps: int) -> None:
        """Move on to the last of the states, but for the trajectories that are held."""
        self.visited, self._state, self._pending = states, states[-1], None
        if self._held is not None:
            self._state = torch.where(self._held, self._start, self._state)

    def _pushed(self, x: Tensor, context: Context, tangents: Tensor) -> tuple[Tensor, Tensor]:
        if not self._checked:
            self._checked = True
            check_derivative(
                lambda x: self._step(x, *context), lambda x, v: self._pushed(x, context, v)[1], x, tangents
            )
        program = self._program((x, *context), tangents.shape[0])
        if program is not None:
            return program(x, *context, tangents)
        after, operator = self._operator(x, context)
        return after, operator.push(tangents)

    def _program(self, example: tuple[Tensor, ...], k: int) -> TangentProgram | None:
        if k not in self._programs:
            try:
                self._programs[k] = TangentProgram(self._step, example, k)
            except (CaptureError, InputError):  # a step that branches on values, say
                self._programs[k] = None
        return self._programs[k]

    @torch.no_grad()
    def _taken(self, x: Tensor, contexts: list[Context]) -> Tensor:
        for context in contexts:
            x = self._step(x, *context)
        return x.detach()


class OrbitStep(Stretch):
    """A step of an orbit from `before`, or a stretch of them, linearised when it is pushed."""

    def __init__(self, orbit: SteppedOrbit, before: Tensor, contexts: list[Context], steps: int) -> None:
        super().__init__(orbit.layout, orbit.layout, before.dtype, before.device)
        self.before, self.contexts, self.steps = before, contexts, steps
        self.states: States = ()
        self._orbit = orbit

    def parts(self) -> list[OrbitStep]:
        if self.steps == 1:
            return [self]
        befores = (self.before, *self.states[:-1])
        pairs = zip(befores, self.contexts, strict=True)
        return [OrbitStep(self._orbit, before, [context], 1) for before, context in pairs]

    def push_tensors(self, tangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        # After a factorisation they lie trajectory by trajectory, which every operation of a step would pay for.
        return (self._orbit.push(self, tangents[0].contiguous()),)

    def pull_tensors(self, cotangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (self._orbit.pull(self, cotangents[0]),)
