"""A report for the terminal, the verdict first."""

from __future__ import annotations

import io

from rich.console import Console

from dynstab.core.report import Report
from dynstab.render.footnotes import Footnotes
from dynstab.render.ink import Ink
from dynstab.render.page import Page
from dynstab.render.sections.exponents import exponents
from dynstab.render.sections.findings import findings
from dynstab.render.sections.network import network
from dynstab.render.sections.profile import profile
from dynstab.render.sections.provenance import footnotes, provenance
from dynstab.render.sections.steps import steps
from dynstab.render.sections.topics import topics
from dynstab.render.sections.verdict import verdict


def render(report: Report, *, width: int = 100, all_steps: bool = False) -> str:
    """The page as plain text, without colour."""
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False, _environ={})
    lines = page(report, Ink.of(console), all_steps=all_steps)
    return "".join(line.plain.rstrip() + "\n" for line in lines)


def print_report(report: Report, console: Console, *, all_steps: bool = False) -> None:
    """Print the page in the console's width, colours and encoding."""
    for line in page(report, Ink.of(console), all_steps=all_steps):
        line.rstrip()
        console.print(line, soft_wrap=True, highlight=False, markup=False, emoji=False)


def page(report: Report, ink: Ink, *, all_steps: bool = False) -> Page:
    """All sections in their order, no line wider than the page."""
    notes = Footnotes()
    lines = [
        *verdict(report, ink),
        *findings(report, ink),
        *profile(report, ink, notes),
        *steps(report, ink, notes, all_steps=all_steps),
        *exponents(report, ink, notes),
        *network(report, ink, notes),
        *topics(report, ink, notes),
        *provenance(report, ink),
        *footnotes(notes, ink),
    ]
    for line in lines:
        line.truncate(ink.width)
    return lines
