"""A module that says itself how it steps, by a method `step`, as state-space layers do for decoding."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from dynstab.core.errors import InputError
from dynstab.systems.time_recurrence import Bound, Recurrence
from dynstab.systems.time_step import FEATURES, driven_recurrence, parameters_of, state_first


class Stepper(nn.Module):
    """The `step` method of a module as its forward."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any) -> Any:
        return self.inner.step(*args)  # type: ignore[operator]


def has_step(module: nn.Module) -> bool:
    """Whether a module says itself how it steps."""
    return callable(getattr(module, "step", None))


def has_forward(module: nn.Module) -> bool:
    """Whether a module can be called. A script with several signatures has no `forward` of that name."""
    return getattr(getattr(module, "forward", None), "__name__", "") != "_forward_unimplemented"


def stepper_recurrence(bound: Bound, args: tuple[Any, ...], name: str) -> Recurrence:
    """A module with `step(input, state)` or `step(state, input)`, given (sequence, state) or (state, sequence).

    A sequence of three dimensions is (batch, T, features), as forward takes it; (T, batch, features) where the module
    has `batch_first` False or the batch of the state says so. Without a state, the first is what
    `default_state(batch)` or `initial_state(batch)` gives.

    Raises:
        InputError: there is no first state, or the step does not give its like back.
    """
    inner = bound.module
    stepper, names = Bound(Stepper(inner), bound.dtype, bound.device), parameters_of(inner.step)  # type: ignore[arg-type]
    tried: list[str] = []
    for sequence, state in _given(inner, args, names, name):
        timed = sequence.ndim > 1 and len(sequence) > 1
        found = driven_recurrence(stepper, sequence, state, order=names, name=name, tried=tried, timed=timed)
        if found is not None:
            return found
    shapes = ", ".join(str(tuple(leaf.shape)) for leaf in pytree.tree_leaves(args) if isinstance(leaf, Tensor))
    reasons = f" ({'; '.join(dict.fromkeys(tried[:2]))})" if tried else ""
    raise InputError(
        f"{name}.step does not give back a state like the one it was given{reasons}; the inputs are of shape {shapes}",
        expected="step(input, state) or step(state, input) that gives (output, state) or the state",
        remedy="the sequence is (batch, T, features), or (T, batch, features) where the module has batch_first = False",
    )


def _given(inner: nn.Module, args: tuple[Any, ...], names: list[str], name: str) -> list[tuple[Tensor, Any]]:
    """(sequence, state), time first, the likelier of two ways to read the arguments first."""
    if len(args) > 1:
        # As layers and cells are given them, or as they stand in step itself.
        pairs = [(args[0], args[1]), (args[1], args[0])]
        if state_first(names) and _rank(args[1]) > _rank(args[0]):
            pairs.reverse()
        pairs = [(_time_first(inner, sequence, state), state) for sequence, state in pairs if _is_tensor(sequence)]
        if pairs:
            return pairs
    if not args or not _is_tensor(args[0]):
        raise InputError(f"{name}.step was given no input", expected="a sequence (batch, T, features)")
    sequence = _time_first(inner, args[0], None)
    if sequence.is_floating_point() and sequence.ndim == FEATURES - 1:
        sequence = sequence.unsqueeze(1)  # one sequence alone is a batch of one
    state = _first_state(inner, sequence.shape[min(1, sequence.ndim - 1)])
    if state is None:
        raise InputError(
            f"{name}.step was given no state", expected="(sequence, state)", remedy="or a method default_state(batch)"
        )
    return [(sequence, state)]


def _first_state(inner: nn.Module, batch: int) -> Any:
    for method in ("default_state", "initial_state"):
        if callable(getattr(inner, method, None)):
            return getattr(inner, method)(batch)
    return None


def _time_first(inner: nn.Module, sequence: Tensor, state: Any) -> Tensor:
    """Batches of sequences as forward takes them, with their time in front."""
    if sequence.ndim != (FEATURES if sequence.is_floating_point() else FEATURES - 1):
        return sequence
    batches = {leaf.shape[0] for leaf in pytree.tree_leaves(state) if isinstance(leaf, Tensor) and leaf.ndim > 1}
    if len(batches) == 1 and sequence.shape[0] != sequence.shape[1]:
        (batch,) = batches
        if batch in sequence.shape[:2]:
            return sequence if sequence.shape[1] == batch else sequence.transpose(0, 1)
    return sequence.transpose(0, 1) if getattr(inner, "batch_first", True) else sequence


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _rank(value: Any) -> int:
    return max((leaf.ndim for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)), default=0)
