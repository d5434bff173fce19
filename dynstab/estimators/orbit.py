"""The orbit of a map: one state after another, with or without tangents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from dynstab.core.errors import InputError
from dynstab.estimators.stepped_orbit import Context, SteppedOrbit, check_state, first_call
from dynstab.linear.captured import is_floating
from dynstab.linear.linearizer import Linearizer
from dynstab.linear.operator import JacobianOperator


class MapOrbit(SteppedOrbit):
    """x -> step(x).

    Args:
        samples: see `SteppedOrbit`.

    Raises:
        InputError: the state is not a floating-point tensor, or a step changes its shape or dtype, or writes into it.
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
        if not torch.equal(self._state.nan_to_num(), state.nan_to_num()):
            raise InputError(
                "the step writes into the state that it is given",
                expected="a pure function, which leaves its argument as it was",
                remedy="begin the step with x = x.clone()",
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
    """A step between trees of tensors, or complex ones, as one between real vectors: their entries in order.

    Args:
        batched: the first dimension of every tensor counts trajectories; one vector is made of each.

    Attributes:
        start: the first state as a vector, or as vectors (trajectories, size).

    Raises:
        InputError: the state holds something else than floating-point or complex tensors of one precision, the parts
            count different numbers of trajectories, or the step does not give its like.
    """

    def __init__(self, step: Callable[[Any], Any], state: Any, *, batched: bool = False) -> None:
        self.step, self._leading = step, int(batched)
        leaves, self._spec = pytree.tree_flatten(state)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor) and (is_floating(leaf) or leaf.is_complex())]
        if not leaves or len(tensors) < len(leaves) or len({tensor.dtype.to_real() for tensor in tensors}) > 1:
            kinds = {str(leaf.dtype) if isinstance(leaf, Tensor) else type(leaf).__name__ for leaf in leaves}
            raise InputError(
                f"a state of several parts holds {', '.join(sorted(kinds)) or 'nothing'}",
                expected="floating-point or complex tensors of one precision",
                remedy="convert the parts to one, e.g. by .double(), and leave out what does not change",
            )
        self._kinds = [_kind(leaf) for leaf in leaves]
        if batched and len({leaf.shape[:1] for leaf in leaves}) != 1:
            raise InputError(
                f"states of several parts have shapes {', '.join(self._kinds)}",
                expected="the same number of trajectories as the first dimension of each part",
            )
        self._shapes = [leaf.shape[self._leading :] for leaf in map(_real, leaves)]
        self._complex = [leaf.is_complex() for leaf in leaves]
        self.start = self._packed(leaves)

    @staticmethod
    def needed(state: object) -> bool:
        """Whether a state is no real tensor but made of some."""
        return isinstance(state, (tuple, list, dict)) or (isinstance(state, Tensor) and state.is_complex())

    def __call__(self, vector: Tensor) -> Tensor:
        leaves = pytree.tree_leaves(self.step(self.unpack(vector)))
        kinds = [_kind(leaf) for leaf in leaves]
        if kinds != self._kinds:
            raise InputError(
                f"the step maps a state {', '.join(self._kinds)} to {', '.join(kinds)}",
                expected="states of the same parts and shapes",
            )
        return self._packed(leaves)

    def unpack(self, vector: Tensor) -> Any:
        """The tree again, of a vector or of vectors (trajectories, size)."""
        parts = vector.split([shape.numel() for shape in self._shapes], dim=-1)
        shaped = [part.reshape(*vector.shape[:-1], *shape) for part, shape in zip(parts, self._shapes, strict=True)]
        leaves = [
            torch.view_as_complex(part) if pair else part for part, pair in zip(shaped, self._complex, strict=True)
        ]
        return pytree.tree_unflatten(leaves, self._spec)

    def _packed(self, leaves: list[Tensor]) -> Tensor:
        return torch.cat([leaf.reshape(*leaf.shape[: self._leading], -1) for leaf in map(_real, leaves)], dim=-1)


def _real(tensor: Tensor) -> Tensor:
    """A complex number is a pair of real ones."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def _kind(leaf: object) -> str:
    """What two states have in common, in words."""
    if not isinstance(leaf, Tensor):
        return type(leaf).__name__
    return f"{tuple(leaf.shape)}{' complex' if leaf.is_complex() else ''}"
