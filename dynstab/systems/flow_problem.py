"""An initial value problem, the steps in which it was solved, and who can lead there again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from dynstab.core.estimate import CONVERGED
from dynstab.linear.adaptive import StepControl
from dynstab.linear.runge_kutta import Field, Tableau, Tensors, runge_kutta_step, stage_times

R = TypeVar("R")
Gradients = tuple[list[Tensor], list[Tensor]]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """x' = f(t, x) from an initial state, over an interval, by a solver.

    Attributes:
        field: f of a time without dimensions and the tensors of a state. start, end: end < start goes back in time.
        solver: its name. tableau: of its steps. adaptive: whether it chooses them.
        own_steps: the steps are the solver's; else it has none to show, and `tableau` stands for it.
        rtol, atol: of an adaptive solver. adjoint: the model trains by the adjoint equation.
        source: whose call this is. gradients: (by the adjoint, through the solver) of a random linear form of the
            solution, to the first state and the parameters; None where that cannot be had.
        notes: what a reader should know.
    """

    field: Field
    initial: Tensors
    start: float
    end: float
    solver: str
    tableau: Tableau
    adaptive: bool
    source: str
    rtol: float = 0.0
    atol: float = 0.0
    adjoint: bool = False
    own_steps: bool = True
    gradients: Callable[[], Gradients] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SolvedStep:
    """A step that the solver accepted.

    Attributes:
        start, size: t and h. state: before it. times: of its stages. rejected: attempts before it.
    """

    start: float
    size: float
    state: Tensors
    times: Tensor
    rejected: int = 0

    @property
    def length(self) -> Tensor:
        """h as a number of the state's dtype."""
        return self.state[0].new_tensor(self.size)


@dataclass(frozen=True, kw_only=True)
class Solution:
    """Steps in order, and the state after them.

    Attributes:
        reached: the time of the last state. answer: the solver's own last state, None where it gave none.
        rejected, evaluations: attempts refused, and calls of the field. outcome: "converged", or why it stopped.
    """

    steps: tuple[SolvedStep, ...]
    last: Tensors
    reached: float
    rejected: int
    evaluations: int
    outcome: str = CONVERGED
    answer: Tensors | None = None


class Source(Protocol):
    """Leads to a problem: its field lives only while the model that holds it runs."""

    def visit(self, action: Callable[[Problem, Solution], R]) -> R:
        """`action(problem, solution)` in the midst of the model's own run, with the model's parameters in place."""
        ...


@dataclass
class Counted:
    """A field that counts its calls."""

    function: Field
    calls: int = field(default=0, init=False)

    def __call__(self, time: Tensor, x: Tensors) -> Tensors:
        self.calls += 1
        return self.function(time, x)


def step_of(problem: Problem, step: SolvedStep, state: Tensors) -> Tensors:
    """The map of a step, at any state."""
    return runge_kutta_step(problem.field, problem.tableau, state, step.times, step.length)


@torch.no_grad()
def solve(problem: Problem, *, first: float | None = None, most: int = 10_000) -> Solution:
    """By our own steps: those of an adaptive tableau under its tolerances.

    Args:
        first: size of the first attempt, a hundredth of the interval by default. most: attempts.
    """
    counted = Counted(problem.field)
    guess = first or abs(problem.end - problem.start) / 100
    control = StepControl(problem.tableau, problem.rtol, problem.atol, step=guess, most=most)
    state, now, steps, waiting, rejected = problem.initial, problem.start, [], 0, 0
    for attempt in control.attempts(counted, state, problem.start, problem.end):
        if not attempt.accepted:
            waiting, rejected = waiting + 1, rejected + 1
            continue
        steps.append(
            SolvedStep(start=attempt.start, size=attempt.step, state=state, times=attempt.times, rejected=waiting)
        )
        state, now, waiting = attempt.state, attempt.start + attempt.step, 0
    return Solution(
        steps=tuple(steps),
        last=state,
        reached=now,
        rejected=rejected,
        evaluations=counted.calls,
        outcome=control.failure or CONVERGED,
        answer=None if control.failure else state,
    )


def ended(problem: Problem, steps: tuple[SolvedStep, ...], last: SolvedStep | None) -> tuple[SolvedStep, ...]:
    """Steps that end where the interval does: the last one shorter where the solver went past it and interpolated."""
    if last is None:
        return steps
    size = problem.end - last.start
    if abs(size) >= abs(last.size) * (1 - 1e-9):
        return (*steps, last)
    times = last.state[0].new_tensor(stage_times(problem.tableau, last.start, size))
    return (*steps, SolvedStep(start=last.start, size=size, state=last.state, times=times, rejected=last.rejected))
