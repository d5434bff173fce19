"""Watching a training: `dynstab.Monitor`, the run's store, sinks, and thin adapters for Lightning and transformers.

`dynstab.monitor.lightning` and `dynstab.monitor.transformers` are imported when they are first named: each needs
its framework.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

_ADAPTERS = ("lightning", "transformers")


def __getattr__(name: str) -> ModuleType:
    if name not in _ADAPTERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.{name}")
