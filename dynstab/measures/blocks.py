"""The repeated residual blocks of a stack, as maps that can be run on other states than the recorded ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dynstab.estimators.reordered import Reordered
from dynstab.linear.operator import LinearOperator
from dynstab.systems.trajectory import State, Step, Trajectory

Value = tuple[Tensor, ...]

_FEWEST = 4
_LONGEST_PERIOD = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class RepeatedBlocks:
    """A run of residual steps that look the same again every `period` steps.

    Values are tuples of tensors in the order of the first state: a state that is several tensors may list them
    in another order after a step, though what a step leaves alone is the same tensor before and after.

    Attributes:
        steps: a whole number of blocks. slots: for each state of the run, where it lists the tensors of the first.
    """

    trajectory: Trajectory
    steps: tuple[Step, ...]
    period: int
    slots: tuple[tuple[int, ...], ...]

    @property
    def count(self) -> int:
        return len(self.steps) // self.period

    @property
    def first(self) -> State:
        return self.trajectory.states[self.steps[0].source]

    @property
    def last(self) -> State:
        return self.trajectory.states[self.steps[-1].target]

    def value(self, position: int) -> Value:
        """The recorded state before the step at that position of the run, or after the last one."""
        recorded = self.trajectory.states[self.first.index + position].value
        return tuple(recorded[slot] for slot in self.slots[position])

    def update(self, position: int, value: Value) -> Value:
        """f(h) of one step: what it adds to h."""
        native = [value[0]] * len(value)
        for tensor, slot in zip(value, self.slots[position], strict=True):
            native[slot] = tensor
        image = self.steps[position].function(tuple(native))
        return tuple(image[slot] - old for slot, old in zip(self.slots[position + 1], value, strict=True))

    def stretched(self, position: int, value: Value, scale: float) -> Value:
        """The step with a branch `scale` times as large: n(h + f(h)) becomes n(h + scale f(h)).

        A norm or an activation n around the sum is no part of the branch: to stretch LN(h + f) - h would leave the
        sphere on which LN keeps h, at every step further.
        """
        parts = self.steps[position].parts
        if parts is None:
            return plus(value, self.update(position, value), scale)
        before, total, after = parts
        start = before(value)
        moved = tuple(new - old for new, old in zip(total(start), start, strict=True))
        return after(plus(start, moved, scale))

    def block_update(self, block: int, value: Value) -> Value:
        """What the sub-steps of one block add to h, one after the other."""
        moved = value
        for position in range(block * self.period, (block + 1) * self.period):
            moved = plus(moved, self.update(position, moved))
        return tuple(after - before for after, before in zip(moved, value, strict=True))

    def operator(self, position: int, of: LinearOperator | None = None) -> LinearOperator:
        """The Jacobian of one step in the order of the first state.

        Args:
            of: a twin of the step's own Jacobian, a formed one say.
        """
        operator = self.steps[position].jacobian if of is None else of
        if len(self.first.value) == 1:
            return operator
        return Reordered(operator, rows=self._order(position + 1), cols=self._order(position))

    def columns(self, value: Value) -> Tensor:
        """(samples, size, 1)."""
        return self.first.layout.flatten(tuple(tensor[None] for tensor in value))

    def _order(self, position: int) -> Tensor:
        """Rows of the recorded state's columns in the order of the first state's."""
        state = self.trajectory.states[self.first.index + position]
        sizes = [tensor.numel() // state.layout.samples for tensor in state.value]
        starts = [sum(sizes[:slot]) for slot in range(len(sizes))]
        return torch.cat([torch.arange(starts[slot], starts[slot] + sizes[slot]) for slot in self.slots[position]])


def plus(value: Value, update: Value, scale: float = 1.0) -> Value:
    """h + scale * f."""
    return tuple(old + scale * new for old, new in zip(value, update, strict=True))


def repeated_blocks(trajectory: Trajectory) -> RepeatedBlocks | None:
    """The longest run of at least four repeated residual blocks of one to four steps, None if there is none."""
    best: RepeatedBlocks | None = None
    for run in _residual_runs(trajectory):
        slots = _slots(trajectory, run)
        looks = [_look(trajectory, step, before) for step, before in zip(run, slots, strict=False)]
        for period in range(1, _LONGEST_PERIOD + 1):
            start, length = _longest_repeat(looks, period)
            if length // period < _FEWEST or (best is not None and length <= len(best.steps)):
                continue
            stop = start + length // period * period
            best = RepeatedBlocks(
                trajectory=trajectory, steps=tuple(run[start:stop]), period=period, slots=tuple(slots[start : stop + 1])
            )
    return best


def _residual_runs(trajectory: Trajectory) -> list[list[Step]]:
    runs: list[list[Step]] = [[]]
    for step in trajectory.steps:
        before, after = (trajectory.states[index].layout.shapes for index in (step.source, step.target))
        same = before == after or sorted(before) == sorted(after)
        if step.kind == "residual" and step.residual_coefficient == 1.0 and same:
            runs[-1].append(step)
        else:
            runs.append([])
    return [run for run in runs if run]


def _slots(trajectory: Trajectory, run: Sequence[Step]) -> list[tuple[int, ...]]:
    """Where every state of the run lists the tensors of its first one."""
    slots = [tuple(range(len(trajectory.states[run[0].source].value)))]
    for step in run:
        before, after = (trajectory.states[index].value for index in (step.source, step.target))
        kept = {i: j for i, slot in enumerate(slots[-1]) for j, new in enumerate(after) if new is before[slot]}
        free = [j for j in range(len(after)) if j not in kept.values()]
        slots.append(tuple(kept[i] if i in kept else free.pop(0) for i in range(len(before))))
    return slots


def _look(trajectory: Trajectory, step: Step, slots: tuple[int, ...]) -> tuple[object, ...]:
    """By which a step is recognised again: the shapes of its parameters, and which tensors of the state it moves."""
    before, after = (trajectory.states[index].value for index in (step.source, step.target))
    moved = tuple(i for i, slot in enumerate(slots) if not any(new is before[slot] for new in after))
    return (*sorted(tuple(parameter.shape) for parameter in step.parameters), moved)


def _longest_repeat(looks: Sequence[object], period: int) -> tuple[int, int]:
    """(start, length) of the longest stretch in which step l looks like step l + period."""
    start, best = 0, (0, 0)
    for position in range(period, len(looks) + 1):
        if position < len(looks) and looks[position] == looks[position - period]:
            continue
        if position - start > best[1]:
            best = (start, position - start)
        start = position - period + 1
    return best
