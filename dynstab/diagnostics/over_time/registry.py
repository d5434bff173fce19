"""All rules over time, found by themselves, and the one question that a monitor asks them."""

from __future__ import annotations

from functools import cache

from dynstab.core.flag import Flag
from dynstab.diagnostics.discovery import rules_in
from dynstab.diagnostics.over_time import rules
from dynstab.diagnostics.over_time.history import History
from dynstab.diagnostics.over_time.rule import RuleOverTime


@cache
def rules_over_time() -> tuple[RuleOverTime, ...]:
    """Every rule over time, in the order of its code."""
    return rules_in(rules, RuleOverTime)


@cache
def _readers(record: type) -> tuple[RuleOverTime, ...]:
    return tuple(rule for rule in rules_over_time() if rule.reads is record)


def watch(history: History) -> tuple[Flag, ...]:
    """What the newest record shows, most severe first; nothing that an open episode has already told."""
    found = [rule.check(history) for rule in _readers(type(history.latest))]
    flags = [flag for flag in found if flag is not None]
    return tuple(sorted(flags, key=lambda flag: (-flag.severity.rank, flag.code)))
