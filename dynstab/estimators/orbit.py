"""The orbit of a map: one state after another, with or without tangents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from dynstab.core.errors import InputError
from dynstab.estimators.stepped_orbit import Context, SteppedOrbit, check_state, first_call
from dynstab.linear.linearizer import Linearizer
from dynstab.linear.operator import JacobianOperator


class MapOrbit(SteppedOrbit):
    """x -> step(x).

    Args:
        samples: see `SteppedOrbit`.

    Raises:
        InputError: the state is not a floating-point tensor, or a step changes its shape or dtype.
    """

    time_step, unit = 1.0, "nat/step"

    def __init__(self, step: Callable[[Tensor], Tensor], state: Tensor, *, samples: int | None = None) -> None:
        check_state(state)
        super().__init__(step, state, samples=samples)
        self._linearizer: Linearizer | None = None
        after = first_call(step, self._state, remedy="for a vector field f(t, x) give time=")
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

    Args:
        batched: the first dimension of every tensor counts trajectories; one vector is made of each.

    Attributes:
        start: the first state as a vector, or as vectors (trajectories, size).

    Raises:
        InputError: the state holds something else than floating-point tensors of one dtype, the parts count
            different numbers of trajectories, or the step does not give its like.
    """

    def __init__(self, step: Callable[[Any], Any], state: Any, *, batched: bool = False) -> None:
        self.step, self._leading = step, int(batched)
        leaves, self._spec = pytree.tree_flatten(state)
        kinds = {leaf.dtype if isinstance(leaf, Tensor) else type(leaf) for leaf in leaves}
        if len(kinds) != 1 or not all(isinstance(leaf, Tensor) and leaf.is_floating_point() for leaf in leaves):
            got = ", ".join(sorted(str(kind) for kind in kinds)) or "nothing"
            raise InputError(f"a state of several parts holds {got}", expected="floating-point tensors of one dtype")
        self._shapes = [leaf.shape for leaf in leaves]
        if batched and len({shape[:1] for shape in self._shapes}) != 1:
            raise InputError(
                f"states of several parts have shapes {_words(self._shapes)}",
                expected="the same number of trajectories as the first dimension of each part",
            )
        self.start = self._packed(leaves)

    def __call__(self, vector: Tensor) -> Tensor:
        leaves = pytree.tree_leaves(self.step(self.unpack(vector)))
        shapes = [leaf.shape if isinstance(leaf, Tensor) else type(leaf).__name__ for leaf in leaves]
        if len(leaves) != len(self._shapes) or shapes != self._shapes:
            raise InputError(
                f"the step maps a state {_words(self._shapes)} to {_words(shapes)}",
                expected="states of the same parts and shapes",
            )
        return self._packed(leaves)

    def unpack(self, vector: Tensor) -> Any:
        """The tuple again, of a vector or of vectors (trajectories, size)."""
        shapes = [shape[self._leading :] for shape in self._shapes]
        parts = vector.split([shape.numel() for shape in shapes], dim=-1)
        shaped = [part.reshape(*vector.shape[:-1], *shape) for part, shape in zip(parts, shapes, strict=True)]
        return pytree.tree_unflatten(shaped, self._spec)

    def _packed(self, leaves: list[Tensor]) -> Tensor:
        return torch.cat([leaf.reshape(*leaf.shape[: self._leading], -1) for leaf in leaves], dim=-1)


def _words(shapes: Sequence[torch.Size | str]) -> str:
    return ", ".join(str(tuple(shape)) if isinstance(shape, torch.Size) else shape for shape in shapes)
