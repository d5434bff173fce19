"""Rules that find themselves: every module of a folder has one, called RULE."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import TypeVar

from dynstab.diagnostics.rule import Coded

R = TypeVar("R", bound=Coded)


def rules_in(package: ModuleType, kind: type[R]) -> tuple[R, ...]:
    """The rules of all modules of a package, in the order of their codes.

    Raises:
        TypeError: a module's RULE is of another kind.
    """
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    found = [importlib.import_module(f"{package.__name__}.{name}").RULE for name in names]
    strange = [rule for rule in found if not isinstance(rule, kind)]
    if strange:
        raise TypeError(f"{package.__name__} holds a RULE of another kind than {kind.__name__}: {strange[0]!r}")
    return tuple(sorted(found, key=lambda rule: rule.code))
