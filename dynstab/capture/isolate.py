"""The user's model comes back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_TABLES = ("_parameters", "_buffers", "_modules")


def _snapshot(module: nn.Module) -> dict[str, Any]:
    saved = dict(module.__dict__)
    for table in _TABLES:
        saved[table] = dict(saved[table])
    return saved


def _restore(module: nn.Module, saved: dict[str, Any]) -> None:
    for table in _TABLES:
        content = module.__dict__[table]
        if dict(content) != saved[table] if table == "_modules" else _differs(content, saved[table]):
            content.clear()
            content.update(saved[table])
    for name in [name for name in module.__dict__ if name not in saved]:
        del module.__dict__[name]
    for name, value in saved.items():
        if name not in _TABLES:
            module.__dict__[name] = value


def _differs(now: dict[str, Any], then: dict[str, Any]) -> bool:
    return list(now) != list(then) or any(now[name] is not then[name] for name in then)


@contextmanager
def isolated(module: nn.Module, *, training: bool = False) -> Iterator[None]:
    """Run the body with `module` in eval mode (or as it is, with `training`) and put everything back.

    Restored: train and eval modes of every submodule, buffers by value, attributes that forward
    sets, and the random states of CPU and CUDA. Gradients are not touched by the body's contract.
    """
    saved = {submodule: _snapshot(submodule) for submodule in module.modules()}
    buffers: list[tuple[Tensor, Tensor]] = [(b, b.detach().clone()) for b in module.buffers()]
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        try:
            if not training:
                for submodule in saved:
                    submodule.training = False
            yield
        finally:
            for submodule, before in saved.items():
                _restore(submodule, before)
            with torch.no_grad():
                for buffer, before in buffers:
                    if not torch.equal(buffer, before):
                        buffer.copy_(before)
