"""What the rules found, most severe first, with what to try."""

from __future__ import annotations

from dynstab.core.flag import Flag, Severity
from dynstab.core.report import Report
from dynstab.render.ink import Ink
from dynstab.render.numbers import plural
from dynstab.render.page import SEVERITY_MARKS, SEVERITY_STYLES, Page, heading, line, wrapped

_NOUNS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}


def by_severity(report: Report) -> list[Flag]:
    """The flags, most severe first, in the report's order among equals."""
    return sorted(report.flags, key=lambda flag: -flag.severity.rank)


def tally(report: Report) -> str:
    """How many findings of each severity: "2 errors, 1 note"."""
    counts = [(noun, sum(flag.severity is severity for flag in report.flags)) for severity, noun in _NOUNS.items()]
    return ", ".join(plural(number, noun) for noun, number in counts if number) or "none"


def findings(report: Report, ink: Ink) -> Page:
    """Each flag: code, name and place; the message; the advice."""
    page = heading(ink, "Findings", tally(report))
    for flag in by_severity(report):
        page += _flag(flag, ink)
    return page


def _flag(flag: Flag, ink: Ink) -> Page:
    style = SEVERITY_STYLES[flag.severity]
    title = f"{SEVERITY_MARKS[flag.severity]} {flag.code} {flag.name}"
    place = ink.name(flag.where, max(8, ink.width - ink.length(title) - 3))
    page = [line(ink.text(title, style), ink.text(f" · {place}" if place else "", "bold"))]
    page += wrapped(ink, flag.message, indent=2)
    for advice in flag.advice:
        page += wrapped(ink, advice, indent=2, lead="→ ", lead_style="green")
    return page
