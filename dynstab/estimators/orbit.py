"""The orbit of a map: one state after another, with or without tangents, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from dynstab.core.errors import InputError
from dynstab.estimators.stepped_orbit import Context, SteppedOrbit
from dynstab.linear.linearizer import Linearizer
from dynstab.linear.operator import JacobianOperator

_NEUTRAL = 1e-6  # nat per step: rounding over a long orbit stays below


class MapOrbit(SteppedOrbit):
    """x -> step(x).

    Raises:
        InputError: the state is not a floating-point tensor, or a step changes its shape or dtype.
    """

    time_step, unit = 1.0, "nat/step"

    def __init__(self, step: Callable[[Tensor], Tensor], state: Tensor) -> None:
        if not isinstance(state, Tensor) or not state.is_floating_point():
            got = str(state.dtype) if isinstance(state, Tensor) else type(state).__name__
            raise InputError(f"the state is of type {got}", expected="a floating-point tensor")
        super().__init__(step, state)
        self._linearizer: Linearizer | None = None
        with torch.no_grad():
            after = step(self._state)
        if not isinstance(after, Tensor) or after.shape != state.shape or after.dtype != state.dtype:
            got = f"{tuple(after.shape)} {after.dtype}" if isinstance(after, Tensor) else type(after).__name__
            raise InputError(
                f"the step maps a state {tuple(state.shape)} {state.dtype} to {got}",
                expected="a map from states to states of the same shape and dtype",
            )

    def _contexts(self, steps: int) -> list[Context]:
        return [()] * steps

    def _operator(self, x: Tensor, context: Context) -> tuple[Tensor, JacobianOperator]:
        if self._linearizer is None:
            self._linearizer = Linearizer(self._step, x)
        after, operator = self._linearizer(x)
        assert isinstance(after, Tensor)
        return after, operator


class PackedStep:
    """A step between tuples of tensors as one between vectors, their entries in order.

    Attributes:
        start: the first state as a vector.

    Raises:
        InputError: the state holds something else than floating-point tensors of one dtype, or the step
            does not give its like.
    """

    def __init__(self, step: Callable[[Any], Any], state: Any) -> None:
        self.step = step
        leaves, self._spec = pytree.tree_flatten(state)
        kinds = {leaf.dtype if isinstance(leaf, Tensor) else type(leaf) for leaf in leaves}
        if len(kinds) != 1 or not all(isinstance(leaf, Tensor) and leaf.is_floating_point() for leaf in leaves):
            got = ", ".join(sorted(str(kind) for kind in kinds)) or "nothing"
            raise InputError(f"a state of several parts holds {got}", expected="floating-point tensors of one dtype")
        self._shapes = [leaf.shape for leaf in leaves]
        self.start = self._packed(leaves)

    def __call__(self, vector: Tensor) -> Tensor:
        leaves = pytree.tree_leaves(self.step(self.unpack(vector)))
        shapes = [leaf.shape if isinstance(leaf, Tensor) else type(leaf).__name__ for leaf in leaves]
        if len(leaves) != len(self._shapes) or shapes != self._shapes:
            words = ", ".join(str(tuple(shape)) for shape in self._shapes)
            got = ", ".join(str(tuple(shape)) if isinstance(shape, torch.Size) else shape for shape in shapes)
            raise InputError(f"the step maps a state {words} to {got}", expected="states of the same parts and shapes")
        return self._packed(leaves)

    def unpack(self, vector: Tensor) -> Any:
        """The tuple again."""
        parts = vector.split([shape.numel() for shape in self._shapes])
        shaped = [part.reshape(shape) for part, shape in zip(parts, self._shapes, strict=True)]
        return pytree.tree_unflatten(shaped, self._spec)

    def _packed(self, leaves: list[Tensor]) -> Tensor:
        return torch.cat([leaf.reshape(-1) for leaf in leaves])


class Recurrence:
    """Watches an orbit for a non-finite state and for an exact return (Brent 1980, BIT 20: constant memory).

    A floating-point orbit that returns exactly repeats for ever: the attractor is a cycle, or rounding has
    closed a chaotic orbit. The sign of the leading exponent tells which.

    Attributes:
        diverged: the first step after which the state is not finite. period: of the cycle found.
    """

    def __init__(self, state: Tensor) -> None:
        self.steps = 0
        self.diverged: int | None = None
        self.period: int | None = None
        self._anchor, self._anchor_step, self._power = state, 0, 1
        self._first, self._before, self._last = state, state, state

    def see(self, state: Tensor) -> bool:
        """Take note of the next state; False where there is no going on."""
        finite = bool(state.isfinite().all())
        if finite and self.period is None and torch.equal(state, self._anchor):
            self.period = self.steps + 1 - self._anchor_step
        self._note((state,))
        if not finite:
            self.diverged = self.steps
        return finite

    def see_stretch(self, states: Tensor | Sequence[Tensor]) -> bool:
        """Take note of the states that come next, (steps, *shape); one by one where there is anything to be seen."""
        if isinstance(states, Tensor):
            back = self.period is None and bool((states == self._anchor).flatten(1).all(dim=1).any())
            if not back and bool(states.isfinite().all()):
                self._note(states)
                return True
        return all(self.see(state) for state in states)

    def _note(self, states: Tensor | Sequence[Tensor]) -> None:
        self.steps += len(states)
        self._before, self._last = states[-2] if len(states) > 1 else self._last, states[-1]
        if self.steps - self._anchor_step >= self._power:
            self._anchor, self._anchor_step, self._power = states[-1], self.steps, 2 * self._power

    def outcome(self, leading: float) -> str | None:
        """What became of the orbit, in words; None where nothing is to be said."""
        dtype = str(self._last.dtype).removeprefix("torch.")
        if self.diverged is not None:
            return f"diverged at step {self.diverged}"
        if self.period is None:
            return "collapsed to a fixed point" if leading < 0 and self._stands_still() else None
        if leading > _NEUTRAL:
            what = "an unstable fixed point" if self.period == 1 else f"a {dtype} cycle of period {self.period}"
            return f"{what}: rounding closed the orbit; use more precision or another start"
        # A last digit that flickers around a fixed point is no cycle of the map.
        if self.period > 1 and not self._stands_still():
            return f"settled on a cycle of period {self.period}"
        return "collapsed to a fixed point" if leading < -_NEUTRAL else "rests at a neutral fixed point"

    def _stands_still(self) -> bool:
        size = max(float(self._first.double().norm()), float(self._last.double().norm()))
        moved = float((self._last - self._before).double().norm())
        return moved <= 1e3 * torch.finfo(self._last.dtype).eps * size
