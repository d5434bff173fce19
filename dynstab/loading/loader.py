"""The contract of a loader, and how loaders are found."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache

from dynstab.loading.loaded import LoadedModel
from dynstab.loading.probe import Probe


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user allows and adds.

    Attributes:
        model: the reference of an architecture, for files of weights.
        trust_pickle: let pickles run what they name. allow_globals: dotted names that pickles may use.
    """

    model: str | None = None
    trust_pickle: bool = False
    allow_globals: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Match:
    """A file that a loader recognises. `format` is what the report calls it."""

    format: str
    probe: Probe

    @property
    def source(self) -> str:
        return str(self.probe.path)


class Loader(ABC):
    """One format. A subclass in any file of `formats/` is found by itself; at most one may match a file."""

    @abstractmethod
    def sniff(self, probe: Probe) -> Match | None:
        """A match if the content is of this format, never by the file's name."""

    @abstractmethod
    def load(self, match: Match, options: Options) -> LoadedModel:
        """The model.

        Raises:
            LoadError: the file is damaged, or lacks what a model needs.
            UnsafePickle: it would run code.
        """


@cache
def loaders() -> tuple[Loader, ...]:
    """One of each loader under `formats/`, in the order of the files' names."""
    from dynstab.loading import formats

    found: list[Loader] = []
    for info in pkgutil.iter_modules(formats.__path__, prefix=f"{formats.__name__}."):
        module = importlib.import_module(info.name)
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, Loader) and not inspect.isabstract(kind) and kind.__module__ == module.__name__:
                found.append(kind())
    return tuple(found)
