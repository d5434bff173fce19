"""Hooks that take the size of what passes between blocks, forwards and backwards, and change nothing."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit import is_tracing  # pyright: ignore[reportPrivateImportUsage]

from dynstab.capture.leaves import tensor_leaves
from dynstab.monitor.lines import lines_of
from dynstab.monitor.places import Place

_LOG = logging.getLogger("dynstab.monitor")
_WIDE = (torch.float32, torch.float64)

TURNS = 4
"""Steps within which all places are heard once: at each step those of every fourth place, at the first one all."""

RETURNS = 4
"""Times that a place is heard of which one listens to the gradient that arrives there, too."""

MOST_ENTRIES, LINE = 2**12, 64
"""Of a larger tensor, lines of memory at even distances are heard: so many entries tell its RMS to a few percent."""

MOST_PASSES = 16
"""Of more passes in one step, micro-batches or calls of a shared module, every second is heard, every fourth, ..."""


@dataclass
class Heard:
    """What passed one place in one direction during a step: more than one tensor where there are micro-batches.

    Samples alone are taken while the network runs: whatever else is done between two of its blocks meets
    cold caches, and is dear.

    Attributes:
        samples: copies of some of the entries, in float32 or float64.
    """

    samples: list[Tensor] = field(default_factory=list)
    _passes: int = 0
    _apart: int = 1

    def note(self, tensor: Tensor) -> None:
        """Take a sample of a detached tensor.

        Raises:
            TypeError: it is sparse or nested, and has no entries to choose from.
        """
        self._passes += 1
        if (self._passes - 1) % self._apart:
            return
        if tensor.layout is not torch.strided:
            raise TypeError(f"tensors of layout {tensor.layout} are not listened to")
        if len(self.samples) == MOST_PASSES:
            del self.samples[1::2]
            self._apart *= 2
        some = lines_of(tensor, length=LINE, most=MOST_ENTRIES)
        # Squares of half precision leave its range: they are summed in float32.
        self.samples.append(some.clone() if some.dtype in _WIDE else some.float())

    @property
    def entries(self) -> int:
        return sum(sample.numel() for sample in self.samples)


class Listener:
    """Hooks on places: the size of what they return, and of the gradient that arrives there.

    Forward passes without gradients are not heard (an evaluation, the first pass of a reentrant checkpoint), nor
    is anything while `muted`. A place at which listening fails falls silent, and the training goes on.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        self.muted = False
        self.due: Collection[int] = range(len(places))
        self._turn, self._returning = 0, self.due
        self._names = [place.name for place in places]
        self._heard = self._silence()
        self._handles = [place.module.register_forward_hook(_Hook(self, index)) for index, place in enumerate(places)]

    def take(self) -> dict[int, tuple[Heard, Heard | None]]:
        """What was heard since the last call at the places that were due, by index: forwards, and backwards or None."""
        heard = self._heard
        self._turn += 1
        # Places fewer than turns would make the listener deaf at some steps.
        turns = min(TURNS, len(self._names)) or 1
        self.due = range(self._turn % turns, len(self._names), turns)
        self._returning = range(self._turn % (turns * RETURNS), len(self._names), turns * RETURNS)
        self._heard = self._silence()
        return heard

    def close(self) -> None:
        """Take the hooks away; a second time does nothing."""
        for handle in self._handles:
            handle.remove()

    def passed(self, index: int, output: Any) -> None:
        """A place that is due returned something."""
        # A graph that is traced in mid-run is that of the model alone.
        if self.muted or not torch.is_grad_enabled() or is_tracing():
            return
        tensor = output if isinstance(output, Tensor) and output.is_floating_point() else _first_tensor(output)
        if tensor is not None:
            forward, backward = self._heard[index]
            self._note(forward, index, tensor.detach())
            if backward is not None and tensor.requires_grad:
                tensor.register_hook(partial(self._returned, backward, index))

    def _returned(self, heard: Heard, index: int, gradient: Tensor) -> None:
        if not self.muted:
            self._note(heard, index, gradient.detach() if gradient.requires_grad else gradient)

    def _note(self, heard: Heard, index: int, tensor: Tensor) -> None:
        try:
            heard.note(tensor)
        except Exception as error:  # a tensor of a kind that has no norm must not end the training
            self._handles[index].remove()
            _LOG.warning("%s is not listened to any more: %s", self._names[index], error)

    def _silence(self) -> dict[int, tuple[Heard, Heard | None]]:
        return {index: (Heard(), Heard() if index in self._returning else None) for index in self.due}


class _Hook:
    """A forward hook that stays with its module: a copy of the module, or one loaded from a file, is not heard."""

    def __init__(self, listener: Listener, index: int) -> None:
        self._listener, self._index = listener, index

    def __call__(self, _module: nn.Module, _args: Any, output: Any) -> None:
        # In a function that is compiled or exported with the model in it, a hook is nothing: no code, no guard.
        if torch.compiler.is_compiling():
            return
        # Most calls end here: at each step a few places are due.
        if self._index in self._listener.due:
            self._listener.passed(self._index, output)

    def __deepcopy__(self, _memo: dict[int, Any]) -> Any:
        return _DEAF

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (nullcontext(), "__exit__")


_DEAF = nullcontext().__exit__
"""Takes three arguments and does nothing; from the standard library, so that a saved model needs no dynstab."""


def _first_tensor(output: Any) -> Tensor | None:
    """The first floating-point tensor of what a module returned."""
    return next((tensor for _, tensor in tensor_leaves(output) if tensor.is_floating_point()), None)
