"""The groups of parameters over time: whose gradient and whose update leave their usual size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from dynstab.core.run import Run
from dynstab.core.run_series import relative_updates

RECENT = 200
"""Signals over which the usual size is taken."""


@dataclass(frozen=True, kw_only=True)
class GroupState:
    """One group now.

    Attributes:
        gradient, update: its gradient norm and ||update|| / ||weight||, as last taken; None where never.
        gradient_ratio, update_ratio: these over their medians of the last `RECENT` signals.
    """

    name: str
    gradient: float | None
    gradient_ratio: float | None
    update: float | None
    update_ratio: float | None

    @property
    def departure(self) -> float:
        """How far from the usual, in ln; infinite where something is no longer finite."""
        ratios = [ratio for ratio in (self.gradient_ratio, self.update_ratio) if ratio is not None]
        return max((abs(math.log(ratio)) if 0 < ratio < math.inf else math.inf for ratio in ratios), default=0.0)


def group_states(run: Run) -> list[GroupState]:
    """Every group, the furthest from its usual size first."""
    recent = run.signals[-RECENT:]
    gradients = [signal.gradient_norm for signal in recent]
    updates = [relative_updates(signal) for signal in recent]
    states = [
        _state(name, _taken(gradients, index), _taken(updates, index)) for index, name in enumerate(run.info.groups)
    ]
    return sorted(states, key=lambda state: -state.departure)


def _state(name: str, gradients: list[float], updates: list[float]) -> GroupState:
    return GroupState(
        name=name,
        gradient=gradients[-1] if gradients else None,
        gradient_ratio=_over_median(gradients),
        update=updates[-1] if updates else None,
        update_ratio=_over_median(updates),
    )


def _taken(series: Sequence[Sequence[float]], index: int) -> list[float]:
    return [values[index] for values in series if index < len(values) and not math.isnan(values[index])]


def _over_median(values: list[float]) -> float | None:
    usual = median(values) if values else 0.0
    return values[-1] / usual if 0 < usual < math.inf else None
