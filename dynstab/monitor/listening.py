"""Hooks that take the size of what passes between blocks, forwards and backwards, and change nothing."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dynstab.capture.leaves import tensor_leaves
from dynstab.monitor.places import Place

_LOG = logging.getLogger("dynstab.monitor")
_HALF = (torch.float16, torch.bfloat16)

GRADIENTS_EVERY = 4
"""Steps of which one has its gradients heard, at all places at once; `GradientNorms` reads those of the weights."""

MOST_ENTRIES = 2**13
"""Of a larger tensor, rows at even distances are heard: about this many entries tell its RMS to a few percent."""


@dataclass(frozen=True)
class Heard:
    """What passed one place in one direction during a step: more than one tensor where there are micro-batches.

    Attributes:
        norms: of what was taken of each tensor. bad: how many entries of it are not finite. entries: how many it has.
            Numbers where they are there at once, tensors where they are still on a device.
    """

    norms: list[Tensor | float] = field(default_factory=list)
    bad: list[Tensor | float] = field(default_factory=list)
    entries: list[int] = field(default_factory=list)

    def note(self, tensor: Tensor) -> None:
        some = tensor if tensor.numel() <= MOST_ENTRIES else _some_rows(tensor)
        # Squares of half precision leave its range: they are summed in float32.
        norm = torch.linalg.vector_norm(some.float() if some.dtype in _HALF else some)
        self.entries.append(some.numel())
        if not norm.is_cpu:
            self.norms.append(norm)
            self.bad.append(some.isfinite().logical_not().sum())
            return
        length = norm.item()
        self.norms.append(length)
        # A finite norm has finite parts.
        self.bad.append(0 if math.isfinite(length) else some.isfinite().logical_not().sum().item())


def _some_rows(tensor: Tensor) -> Tensor:
    """Whole rows, so that memory is read in one piece; their distance is odd, so that heads and channels take turns."""
    if tensor.ndim < 2 or not tensor.is_contiguous():
        return tensor
    row, apart = tensor.shape[-1], (tensor.numel() // MOST_ENTRIES) | 1
    rows = tensor.numel() // row
    return tensor.as_strided((-(-rows // apart), row), (row * apart, 1))


class Listener:
    """Hooks on places: the size of what they return, and of the gradient that arrives there.

    Forward passes without gradients are not heard (an evaluation, the first pass of a reentrant checkpoint), nor
    is anything while `muted`. A place at which listening fails falls silent, and the training goes on.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        self.muted = False
        self._steps = 0
        self._names = [place.name for place in places]
        self._forward, self._backward = self._silence(), self._silence()
        self._handles = [
            place.module.register_forward_hook(_Hook(partial(self._passed, index)))
            for index, place in enumerate(places)
        ]

    def take(self) -> tuple[list[Heard], list[Heard]]:
        """What was heard forwards and backwards since the last call, place by place."""
        heard = self._forward, self._backward
        self._forward, self._backward = self._silence(), self._silence()
        self._steps += 1
        return heard

    def close(self) -> None:
        """Take the hooks away; a second time does nothing."""
        for handle in self._handles:
            handle.remove()

    def _silence(self) -> list[Heard]:
        return [Heard() for _ in self._names]

    def _passed(self, index: int, output: Any) -> None:
        if self.muted or not torch.is_grad_enabled():
            return
        tensor = output if isinstance(output, Tensor) and output.is_floating_point() else _first_tensor(output)
        if tensor is not None:
            self._note(self._forward[index], index, tensor.detach())
            if tensor.requires_grad and self._steps % GRADIENTS_EVERY == 0:
                tensor.register_hook(partial(self._returned, index))

    def _returned(self, index: int, gradient: Tensor) -> None:
        if not self.muted:
            self._note(self._backward[index], index, gradient.detach() if gradient.requires_grad else gradient)

    def _note(self, heard: Heard, index: int, tensor: Tensor) -> None:
        try:
            heard.note(tensor)
        except Exception as error:  # a tensor of a kind that has no norm must not end the training
            self._handles[index].remove()
            _LOG.warning("%s is not listened to any more: %s", self._names[index], error)


class _Hook:
    """A forward hook that stays with its module: a copy of the module, or one loaded from a file, is not heard."""

    def __init__(self, passed: partial[None]) -> None:
        self._passed = passed

    def __call__(self, _module: nn.Module, _args: Any, output: Any) -> None:
        self._passed(output)

    def __deepcopy__(self, _memo: dict[int, Any]) -> Any:
        return _DEAF

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (nullcontext(), "__exit__")


_DEAF = nullcontext().__exit__
"""Takes three arguments and does nothing; from the standard library, so that a saved model needs no dynstab."""


def _first_tensor(output: Any) -> Tensor | None:
    """The first floating-point tensor of what a module returned."""
    return next((tensor for _, tensor in tensor_leaves(output) if tensor.is_floating_point()), None)
