"""Where a run's records go besides its store. Each module here is one sink, found by its name.

A module has the class in `SINK`, whose arguments all have defaults. It is imported when it is asked for, and
with it the package that it needs.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Protocol, runtime_checkable

from dynstab.core.errors import ConfigError
from dynstab.core.run import RunInfo
from dynstab.monitor.tables import Record


@runtime_checkable
class Sink(Protocol):
    """What takes records. Whatever it raises ends the sink and never the training: the monitor sees to that."""

    def open(self, info: RunInfo) -> None:
        """Once, before any record."""
        ...

    def write(self, record: Record) -> None:
        """Records in the order of their making."""
        ...

    def close(self) -> None:
        """Once, after the last record: everything is written out."""
        ...


def sinks() -> list[str]:
    """The names of all sinks that dynstab has."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def find_sink(sink: str | Sink) -> Sink:
    """The sink of that name with its defaults, or the object itself where it is one already.

    Raises:
        ConfigError: there is no such sink, its package is not installed, or the object is none.
    """
    if not isinstance(sink, str):
        if isinstance(sink, Sink):
            return sink
        got = f"a sink of type {type(sink).__name__}"
        raise ConfigError(got, expected=f"an object with open, write and close, or one of {', '.join(sinks())}")
    if sink not in sinks():
        raise ConfigError(f"there is no sink {sink!r}", expected=f"one of {', '.join(sinks())}")
    try:
        return import_module(f"{__name__}.{sink}").SINK()
    except ImportError as error:
        got = f"the sink {sink} needs a package that is not installed ({error})"
        raise ConfigError(got, remedy=f"pip install 'dynstab[{sink}]'") from error
