"""How large the states of orbits are as they go on: whether they stay within bounds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_AN_OCTAVE = 16  # times that are looked at between a step and its double
_FEWEST = 32  # steps, before which nothing is said
_LEAST = 1.05  # by which later states are to be larger than all that came before
_SLOWING = 0.75  # ln of the growth when time doubles, over the same one doubling before: 1 for every power of time


class SizeWatch:
    """Norms of the states at a few times in each octave: of T steps, some 16 log2(T) are held."""

    def __init__(self) -> None:
        self._steps: list[int] = []
        self._norms: list[Tensor] = []

    def see(self, before: int, states: Tensor | Sequence[Tensor]) -> None:
        """Take note of the states (samples, size) that come after `before` others."""
        pace = max(1, (1 << (before + 1).bit_length() - 1) // _AN_OCTAVE)
        for index in range(-(before + 1) % pace, len(states), pace):
            self._steps.append(before + 1 + index)
            self._norms.append(states[index].double().norm(dim=1))

    def grows(self, row: int) -> bool:
        """Whether a trajectory leaves every bound, as far as can be told: it grows on like a power of time, or faster.

        Its last quarter lies above all of the quarter before the half, the same was so at half the time, and
        the growth from one doubling of time to the next does not die down.
        """
        total = self._steps[-1] if self._steps else 0
        if total < _FEWEST:
            return False
        steps, norms = torch.tensor(self._steps), torch.stack([norm[row] for norm in self._norms]).cpu()

        def within(low: float, high: float) -> Tensor:
            return norms[(steps > low * total) & (steps <= high * total)]

        last, half, quarter = within(3 / 4, 1), within(3 / 8, 1 / 2), within(3 / 16, 1 / 4)
        if not (bool(last.isfinite().all()) and bool((quarter > 0).all())):
            return False
        if not (last.min() > _LEAST * within(1 / 4, 1 / 2).max() and half.min() > _LEAST * within(1 / 8, 1 / 4).max()):
            return False
        now, earlier = (late.log().mean() - early.log().mean() for late, early in ((last, half), (half, quarter)))
        return bool(now >= _SLOWING * earlier)
