"""The documentation of rules on the console: one rule in full, or the table of all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from rich.console import Console
from rich.markdown import Markdown
from rich.text import Text

from dynstab.core.flag import Severity
from dynstab.render.formats.sarif import RuleSummary
from dynstab.render.ink import Ink
from dynstab.render.page import SEVERITY_MARKS, SEVERITY_STYLES, Page, line, wrapped

WIDEST = 100
"""Columns of running text that are still easy to read."""


class DocumentedRule(RuleSummary, Protocol):
    """What is shown of a rule. `documentation` is Markdown by heading, in the order to be shown."""

    @property
    def documentation(self) -> Mapping[str, str]: ...


def print_rule(rule: DocumentedRule, console: Console) -> None:
    """One rule: title, summary, and every heading of its documentation."""
    ink = _ink(console)
    title = line(ink.text(f"{rule.code} {rule.name}", "bold"), "  ", _severity(rule.severity, ink))
    _print([title, *wrapped(ink, rule.summary)], console)
    for heading, text in rule.documentation.items():
        _print([Text(), ink.text(heading, "bold cyan"), *_markdown(text, console, ink)], console)


def print_rules(rules: Iterable[DocumentedRule], console: Console) -> None:
    """All rules: code, name, usual severity and summary."""
    ink, rules = _ink(console), list(rules)
    width = max((ink.length(rule.name) for rule in rules), default=0)
    for rule in rules:
        lead = f"{rule.code}  {rule.name.ljust(width)}  "
        page = wrapped(ink, rule.summary, lead=f"{SEVERITY_MARKS[rule.severity]} {lead}")
        page[0].stylize(SEVERITY_STYLES[rule.severity], 0, ink.length(f"{SEVERITY_MARKS[rule.severity]} {rule.code}"))
        _print(page, console)
    legend = " · ".join(f"{SEVERITY_MARKS[severity]} {severity.value}" for severity in reversed(Severity))
    _print([Text(), *wrapped(ink, f"{legend}. `dynstab rule CODE` shows one in full.", style="dim")], console)


def _ink(console: Console) -> Ink:
    ink = Ink.of(console)
    return Ink(width=min(WIDEST, ink.width), ascii=ink.ascii)


def _severity(severity: Severity, ink: Ink) -> Text:
    return ink.text(f"{SEVERITY_MARKS[severity]} {severity.value}", SEVERITY_STYLES[severity])


def _markdown(text: str, console: Console, ink: Ink) -> Page:
    """Markdown as lines, with every character passed through the ink."""
    options = console.options.update(width=max(1, ink.width - 2))
    rows = console.render_lines(Markdown(text, hyperlinks=False), options, pad=False)
    page = [line("  ", *(Text(ink.plain(part.text), style=part.style or "") for part in row)) for row in rows]
    while page and not page[0].plain.strip():
        page.pop(0)
    return page


def _print(page: Page, console: Console) -> None:
    for each in page:
        each.rstrip()
        console.print(each, soft_wrap=True, highlight=False, markup=False)
