"""What becomes of orbits: whether they stay finite and bounded, come to rest or return."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, log

import torch
from torch import Tensor

from dynstab.core.time_dynamics import ON_A_CYCLE
from dynstab.estimators.orthogonal import random_frame
from dynstab.estimators.sizes import SizeWatch
from dynstab.linear.operator import LinearOperator

_NEUTRAL = 1e-6  # nat per step: rounding over a long orbit stays below
_TURNS = 20  # steps in which a tangent at rest turns into the leading direction
_FLICKER = 32  # eps, by which the last digits of a state on a cycle go on changing


class Recurrence:
    """Watches orbits for a non-finite state and for an exact return (Brent 1980, BIT 20: constant memory).

    A floating-point orbit that returns exactly repeats for ever: the attractor is a cycle, or rounding has
    closed a chaotic orbit. The sign of the leading exponent tells which. Last digits that go on changing make the
    exact period a multiple of the cycle's own, so the first return is followed once around.

    Args:
        state: the first one. samples: trajectories that it holds, along its first dimension where they are many.

    Attributes:
        steps: seen so far.
        diverged: (samples,), the first step after which a trajectory is not finite; 0 where it is finite.
        period: (samples,), of the cycle found, but for last digits; 0 where there is none.
    """

    def __init__(self, state: Tensor, samples: int = 1) -> None:
        rows = state.reshape(samples, -1)
        self.steps = 0
        self.diverged = torch.zeros(samples, dtype=torch.long, device=state.device)
        self.period = torch.zeros_like(self.diverged)
        self._anchor, self._anchor_step, self._power = rows, 0, 1
        self._first, self._before, self._last = rows, rows, rows
        self._sizes = SizeWatch()
        self._open = torch.ones_like(self.diverged, dtype=torch.bool)  # neither diverged nor on a cycle
        self._any_open, self._fallen = True, {}
        self._returned, self._returned_step, self._around_until = rows, torch.zeros_like(self.diverged), 0

    @property
    def fallen(self) -> Tensor:
        """(samples,) bool: which have diverged."""
        return self.diverged > 0

    @property
    def going(self) -> bool:
        """Whether one has not."""
        return len(self._fallen) < len(self.diverged)

    def see(self, state: Tensor) -> bool:
        """Take note of the next state; False where a trajectory diverges at it."""
        return self.see_stretch((state,))

    def see_stretch(self, states: Tensor | Sequence[Tensor]) -> bool:
        """Take note of the states that come next, (steps, *shape); one by one where there is anything to be seen."""
        if isinstance(states, Tensor):
            stretch = states.reshape(len(states), *self._last.shape)
            if not self._eventful(stretch):
                self._note(stretch)
                return True
        before = len(self._fallen)
        for state in states:
            rows = state.reshape(self._last.shape)
            if self._eventful(rows):
                self._take_down(rows)
            self._note((rows,))
            if not self.going:
                break
        return len(self._fallen) == before

    def _eventful(self, states: Tensor) -> bool:
        """Whether a trajectory returns, is followed or diverges within (samples, size) or (steps, samples, size)."""
        if self.steps < self._around_until:
            return True
        if self._any_open:
            if states.ndim == 2 and len(states) == 1:
                back = torch.equal(states, self._anchor)
            else:
                back = bool(((states == self._anchor).all(dim=-1) & self._open).any())
            if back:
                return True
        finite = states.isfinite()
        return not bool((finite.all(dim=-1) | self.fallen if self._fallen else finite).all())

    def _take_down(self, rows: Tensor) -> None:
        """Who returns, and who diverges, at the state that comes next."""
        finite = rows.isfinite().all(dim=1)
        back = (rows == self._anchor).all(dim=1) & self._open & finite
        self._follow(rows, back)
        fall = ~finite & ~self.fallen
        self.diverged[fall] = self.steps + 1
        self._fallen.update({row: rows[row] for row in fall.nonzero().flatten().tolist()})
        self._open = self._open & finite & ~back
        self._any_open = bool(self._open.any())

    def _follow(self, rows: Tensor, back: Tensor) -> None:
        """Begin with those that come back for the first time; who nears its return after a part of its period has
        that part for its period."""
        step = self.steps + 1
        past, size = step - self._returned_step, rows.abs().amax(dim=1)
        gap = (rows - self._returned).abs().amax(dim=1)
        part = (past < self.period) & (self.period % past.clamp(min=1) == 0)
        near = part & (gap <= _FLICKER * torch.finfo(rows.dtype).eps * size)
        self.period = torch.where(near, past, self.period)
        if bool(back.any()):
            self.period[back], self._returned_step[back] = step - self._anchor_step, step
            self._returned = torch.where(back[:, None], rows, self._returned)
            self._around_until = max(self._around_until, 2 * step - self._anchor_step)

    def _note(self, states: Tensor | Sequence[Tensor]) -> None:
        self._sizes.see(self.steps, states)
        self.steps += len(states)
        self._before, self._last = states[-2] if len(states) > 1 else self._last, states[-1]
        if self.steps - self._anchor_step >= self._power:
            self._anchor, self._anchor_step, self._power = states[-1], self.steps, 2 * self._power

    def last(self, row: int = 0) -> Tensor:
        """The last state of a trajectory, as a vector; the one that is not finite where it diverged."""
        return self._fallen.get(row, self._last[row])

    def outcome(
        self, leading: float, row: int = 0, *, linearised: Callable[[], LinearOperator] | None = None
    ) -> str | None:
        """What became of a trajectory, in words; None where nothing is to be said.

        Args:
            leading: its leading exponent. linearised: the Jacobian of one more step. It is asked for where every
                tangent is lost on the way (at a kink) and the exponents tell nothing of where the state rests.
        """
        dtype = str(self._last.dtype).removeprefix("torch.")
        diverged, period = int(self.diverged[row]), int(self.period[row])
        if diverged:
            return self.never_finite(row) or f"diverged at step {diverged}"
        if not period and torch.equal(self._before[row], self._last[row]):
            period = 1  # too late to have met a state that is remembered
        if not period and self._sizes.grows(row):
            return "grows without bound"
        if not period:
            return "collapsed to a fixed point" if leading < 0 and self._stands_still(row) else None
        if period == 1 and leading == -inf and linearised is not None:
            leading = _rate_at_rest(linearised, row)
        if leading > _NEUTRAL:
            what = "an unstable fixed point" if period == 1 else f"a {dtype} cycle of period {period}"
            return f"{what}: rounding closed the orbit; use more precision or another start"
        # A last digit that flickers around a fixed point is no cycle of the map.
        if period > 1 and not self._stands_still(row):
            return f"{ON_A_CYCLE} {period}"
        return "collapsed to a fixed point" if leading < -_NEUTRAL else "rests at a neutral fixed point"

    def never_finite(self, row: int = 0) -> str | None:
        """In words, that a trajectory began at what is no number; None where it did not."""
        return None if bool(self._first[row].isfinite().all()) else "was not finite to begin with"

    def _stands_still(self, row: int) -> bool:
        first, before, last = (state[row].double() for state in (self._first, self._before, self._last))
        size = max(float(first.norm()), float(last.norm()))
        return float((last - before).norm()) <= 1e3 * torch.finfo(self._last.dtype).eps * size


def _rate_at_rest(linearised: Callable[[], LinearOperator], row: int) -> float:
    """ln of what becomes of a tangent in one more step, once it has turned into the leading direction."""
    operator, growth = linearised(), 0.0
    columns = random_frame(operator.samples, operator.cols, 1, seed=0, dtype=operator.dtype, device=operator.device)
    for _ in range(_TURNS):
        columns = operator.matmat(columns)
        growth = float(columns[row].norm())
        columns = columns / columns.norm(dim=1, keepdim=True).clamp_min(torch.finfo(columns.dtype).tiny)
        operator = linearised()
    return log(growth) if growth > 0 else -inf
