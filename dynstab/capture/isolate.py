"""The user's model comes back as it was."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy
import torch
from torch import Tensor, nn

# Held by a module and changed in place: its tables of parameters, buffers, submodules and hooks among them.
_CONTAINERS = (dict, OrderedDict, list, set)


class _Snapshot:
    """A module's attributes, and what its containers held."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.attributes = module, dict(vars(module))
        self.contents = {name: value.copy() for name, value in self.attributes.items() if type(value) in _CONTAINERS}

    def restore(self) -> None:
        attributes = vars(self.module)
        for name in [name for name in attributes if name not in self.attributes]:
            del attributes[name]
        attributes.update(self.attributes)
        for name, content in self.contents.items():
            container = attributes[name]
            if _differs(container, content):
                container.clear()
                container.extend(content) if isinstance(content, list) else container.update(content)


def _differs(now: Any, then: Any) -> bool:
    """By identity: entries may be tensors."""
    if isinstance(then, set):
        return now != then
    pairs = zip(now.values(), then.values(), strict=False) if isinstance(then, dict) else zip(now, then, strict=False)
    keys = isinstance(then, dict) and list(now) != list(then)
    return keys or len(now) != len(then) or any(a is not b for a, b in pairs)


@contextmanager
def random_states_kept() -> Iterator[None]:
    """The random states of torch, Python and NumPy are put back, whatever the body draws."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    python, numbers = random.getstate(), numpy.random.get_state()
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            numpy.random.set_state(numbers)


@contextmanager
def isolated(module: nn.Module, *, training: bool = False) -> Iterator[None]:
    """Run the body with `module` in eval mode (or as it is, with `training`) and put everything back.

    Restored: train and eval modes of every submodule, buffers by value, attributes that forward
    sets, hooks that it installs, what it adds to lists and dictionaries, and the random states of
    torch, Python and NumPy. Gradients are not touched by the body's contract.
    """
    saved = [_Snapshot(submodule) for submodule in module.modules()]
    buffers: list[tuple[Tensor, Tensor]] = [(b, b.detach().clone()) for b in module.buffers()]
    with random_states_kept():
        try:
            if not training:
                for snapshot in saved:
                    snapshot.module.training = False
            yield
        finally:
            for snapshot in saved:
                snapshot.restore()
            with torch.no_grad():
                for buffer, before in buffers:
                    if not torch.equal(buffer, before):
                        buffer.copy_(before)
