"""The groups of parameters over time: whose gradient and whose update leave their usual size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from dynstab.core.run import Run
from dynstab.core.run_series import Point, lost_since, relative_updates

RECENT = 200
"""Signals over which the usual size is taken."""


@dataclass(frozen=True, kw_only=True)
class GroupState:
    """One group now.

    Attributes:
        gradient, update: its gradient norm and ||update|| / ||weight||, as last taken; None where never.
        gradient_ratio, update_ratio: these over their medians of the last `RECENT` signals.
        gradient_lost, update_lost: the training steps since which they are not finite; None where they are.
    """

    name: str
    gradient: float | None
    gradient_ratio: float | None
    update: float | None
    update_ratio: float | None
    gradient_lost: int | None
    update_lost: int | None

    @property
    def lost(self) -> float:
        """The training step since which something is not finite; infinite where all is."""
        return min((step for step in (self.gradient_lost, self.update_lost) if step is not None), default=math.inf)

    @property
    def departure(self) -> float:
        """How far from the usual, in ln; infinite where something is no longer finite."""
        if self.lost < math.inf:
            return math.inf
        ratios = [ratio for ratio in (self.gradient_ratio, self.update_ratio) if ratio is not None]
        return max((abs(math.log(ratio)) if 0 < ratio < math.inf else math.inf for ratio in ratios), default=0.0)


def group_states(run: Run) -> list[GroupState]:
    """Every group, the furthest from its usual size first."""
    gradients = [(signal.step, signal.gradient_norm) for signal in run.signals]
    updates = [(signal.step, relative_updates(signal)) for signal in run.signals]
    states = [
        _state(name, _taken(gradients, index), _taken(updates, index)) for index, name in enumerate(run.info.groups)
    ]
    return sorted(states, key=lambda state: (-state.departure, state.lost))


def _state(name: str, gradients: list[Point], updates: list[Point]) -> GroupState:
    return GroupState(
        name=name,
        gradient=gradients[-1][1] if gradients else None,
        gradient_ratio=_over_median(gradients[-RECENT:]),
        gradient_lost=lost_since(gradients),
        update=updates[-1][1] if updates else None,
        update_ratio=_over_median(updates[-RECENT:]),
        update_lost=lost_since(updates),
    )


def _taken(series: Sequence[tuple[int, Sequence[float | None]]], index: int) -> list[Point]:
    return [(step, value) for step, values in series if index < len(values) and (value := values[index]) is not None]


def _over_median(points: list[Point]) -> float | None:
    """The last number over the median of those that are finite."""
    known = [value for _, value in points if math.isfinite(value)]
    usual = median(known) if known else 0.0
    return points[-1][1] / usual if usual > 0 else None
