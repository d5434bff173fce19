"""All rules, found by themselves: a new rule is one new file in `rules/` with a `RULE` in it."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from functools import cache

from dynstab.core.errors import ConfigError
from dynstab.core.flag import Flag
from dynstab.diagnostics import rules
from dynstab.diagnostics.discovery import rules_in
from dynstab.diagnostics.facts import Facts
from dynstab.diagnostics.over_time import RuleOverTime, rules_over_time
from dynstab.diagnostics.rule import Rule


@cache
def all_rules() -> tuple[Rule, ...]:
    """Every rule, in the order of its code."""
    return rules_in(rules, Rule)


def documented_rules() -> tuple[Rule | RuleOverTime, ...]:
    """Every rule, of reports and over time, in the order of its code."""
    return tuple(sorted((*all_rules(), *rules_over_time()), key=lambda rule: rule.code))


def find_documented(code_or_name: str) -> Rule | RuleOverTime:
    """The rule of that code or name, of reports or over time, in any case.

    Raises:
        ConfigError: there is none; the message names the nearest ones.
    """
    wanted = code_or_name.strip().lower()
    for rule in documented_rules():
        if wanted in (rule.code.lower(), rule.name):
            return rule
    raise _unknown(code_or_name, documented_rules())


def matching_rules(selector: str) -> tuple[Rule, ...]:
    """The rules of a code, a name or the beginning of a code ("DS1" is all of gradient flow).

    Raises:
        ConfigError: no rule matches.
    """
    wanted = selector.strip().lower()
    found = tuple(
        rule for rule in all_rules() if wanted and (rule.name == wanted or rule.code.lower().startswith(wanted))
    )
    if not found:
        raise _unknown(selector, all_rules())
    return found


def selected_rules(select: Sequence[str] = (), ignore: Sequence[str] = ()) -> tuple[Rule, ...]:
    """The rules that run.

    Args:
        select: codes, names or beginnings of codes; empty means all. ignore: the same, and it wins.

    Raises:
        ConfigError: a selector that matches no rule.
    """
    chosen = {rule.code for selector in select for rule in matching_rules(selector)}
    ignored = {rule.code for selector in ignore for rule in matching_rules(selector)}
    return tuple(rule for rule in all_rules() if (rule.code in chosen or not select) and rule.code not in ignored)


def diagnose(facts: Facts, select: Sequence[str] = (), ignore: Sequence[str] = ()) -> tuple[Flag, ...]:
    """The flags of all selected rules, most severe first, then by code and place.

    Args:
        select, ignore: as for `selected_rules`.

    Raises:
        ConfigError: a selector that matches no rule.
    """
    flags = [flag for rule in selected_rules(select, ignore) for flag in rule.check(facts)]
    return tuple(sorted(flags, key=lambda flag: (-flag.severity.rank, flag.code, flag.steps, flag.where)))


def _unknown(selector: str, rules: Sequence[Rule | RuleOverTime]) -> ConfigError:
    known = {rule.code.lower(): rule.code for rule in rules} | {rule.name: rule.name for rule in rules}
    near = [known[match] for match in get_close_matches(selector.strip().lower(), known, n=3, cutoff=0.5)]
    return ConfigError(
        f"no rule is called {selector!r}",
        expected="a code such as DS101, a name such as exploding-gradient, or the beginning of a code such as DS1",
        remedy=f"the nearest: {', '.join(near)}" if near else "`dynstab rule` lists all",
    )
