"""Chapters that only some systems have: time, flow, structure, and whatever comes.

A topic is one file here with a function `topic(report) -> Topic | None`; console, Markdown and
HTML show every topic that has something to say, in the order of their `ORDER`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType

from dynstab.core.estimate import Estimate
from dynstab.core.report import Report

__all__ = ["Topic", "TopicTable", "topics"]


@dataclass(frozen=True, kw_only=True)
class TopicTable:
    """A small table: `heads` name the columns, cells are text or estimates."""

    title: str
    heads: tuple[str, ...]
    rows: Sequence[Sequence[str | Estimate]]


@dataclass(frozen=True, kw_only=True)
class Topic:
    """What a chapter says.

    Attributes:
        title: its heading. remark: what one needs to read it, a few words.
        facts: (name, number, unit); those that were not measured become footnotes.
        remarks: (name, text). tables: at most a screen each.
        charts: names of the charts (`dynstab.render.charts`) that a page shows with it.
    """

    title: str
    remark: str = ""
    facts: tuple[tuple[str, Estimate, str], ...] = ()
    remarks: tuple[tuple[str, str], ...] = ()
    tables: tuple[TopicTable, ...] = ()
    charts: tuple[str, ...] = ()


@cache
def _modules() -> tuple[ModuleType, ...]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return tuple(sorted(modules, key=lambda module: module.ORDER))


def topics(report: Report) -> tuple[Topic, ...]:
    """Every chapter that this report has something to say in."""
    found = [module.topic(report) for module in _modules()]
    return tuple(topic for topic in found if topic is not None)
