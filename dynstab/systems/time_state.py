"""A user's state, a tensor or a tree of tensors, as the real tensors that a recurrence has."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from dynstab.linear.captured import is_floating
from dynstab.linear.driven import Tensors
from dynstab.systems.time_recurrence import Bound


def is_state(value: Any) -> bool:
    """Whether it is made of floating-point or complex tensors alone, one at least."""
    leaves = pytree.tree_leaves(value)
    return bool(leaves) and all(
        is_floating(leaf) or (isinstance(leaf, Tensor) and leaf.is_complex()) for leaf in leaves
    )


class StateForm:
    """The tree of a state, and which of its tensors are complex: these are pairs of real numbers, (..., 2).

    Attributes:
        start: the state itself, detached, in the dtype of the analysis.
        rank: the most dimensions that a tensor of it has. batched: all have more than one, so that the first may
            count samples.
    """

    def __init__(self, bound: Bound, state: Any) -> None:
        leaves, self._spec = pytree.tree_flatten(state)
        tensors = [bound.cast(leaf if isinstance(leaf, Tensor) else torch.as_tensor(leaf)) for leaf in leaves]
        self._like = [(tensor.shape, tensor.dtype) for tensor in tensors]
        self.rank = max(tensor.ndim for tensor in tensors)
        self.batched = all(tensor.ndim > 1 for tensor in tensors)
        self.start: Tensors = tuple(_real(tensor).clone() for tensor in tensors)

    def tree(self, tensors: Tensors) -> Any:
        """The state that the model knows."""
        leaves = [
            torch.view_as_complex(tensor.contiguous()) if dtype.is_complex else tensor
            for tensor, (_, dtype) in zip(tensors, self._like, strict=True)
        ]
        return pytree.tree_unflatten(leaves, self._spec)

    def fits(self, value: Any) -> bool:
        """Whether it is a state like this one."""
        leaves = pytree.tree_leaves(value)
        return self._shapes(leaves) and [leaf.dtype for leaf in leaves] == [dtype for _, dtype in self._like]

    def is_complex_in(self, value: Any) -> bool:
        """Whether it is like this state but for complex numbers in place of real ones."""
        leaves = pytree.tree_leaves(value)
        return self._shapes(leaves) and any(
            leaf.is_complex() and not dtype.is_complex for leaf, (_, dtype) in zip(leaves, self._like, strict=True)
        )

    def _shapes(self, leaves: list[Any]) -> bool:
        return all(isinstance(leaf, Tensor) for leaf in leaves) and [leaf.shape for leaf in leaves] == [
            shape for shape, _ in self._like
        ]

    def __str__(self) -> str:
        return ", ".join(_words(shape, dtype) for shape, dtype in self._like)


def described(value: Any) -> str:
    """What it is made of, in words: shapes and dtypes of tensors, types of the rest."""
    leaves = pytree.tree_leaves(value)
    words = (_words(leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else type(leaf).__name__ for leaf in leaves)
    return ", ".join(words) or "nothing"


def _words(shape: torch.Size, dtype: torch.dtype) -> str:
    return f"{tuple(shape)} {str(dtype).removeprefix('torch.')}"


def parts_of(state: Any) -> Tensors:
    """The real tensors of a state, in order."""
    return tuple(_real(leaf) for leaf in pytree.tree_leaves(state))


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
