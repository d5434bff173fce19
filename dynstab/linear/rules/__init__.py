"""One table, op -> rule. Importing this package fills it: every module in it enters its rules."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from dynstab.linear.rules.table import RULES as RULES

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
