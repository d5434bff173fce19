"""A comparison of runs on the console: where each began to go wrong, what came and went, what moved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from string import ascii_uppercase

from rich.text import Text

from dynstab.core.comparison import Difference
from dynstab.core.estimate import CONVERGED
from dynstab.core.run_comparison import RunComparison, RunFlag
from dynstab.core.run_series import PROBE_NUMBERS, SIGNAL_NUMBERS
from dynstab.render.comparison import MARKS, change, state
from dynstab.render.ink import Ink, printable
from dynstab.render.numbers import UNSETTLED, estimate, plural
from dynstab.render.page import Page, RichPage, heading, line, plain_text, wrapped
from dynstab.render.run.words import beginning, course, kind, subject

MOST = 20
"""Groups that are listed; the JSON holds all."""
LONGEST_NAME = 40
LEGEND = (
    "± is the fluctuation over the tail · ≠ the medians differ by more than twice both · ? a single number cannot tell "
    "· exponents of probes are lower bounds"
)
WORDS = {name: words for name, words, *_ in (*SIGNAL_NUMBERS, *PROBE_NUMBERS)}


def comparison_page(comparison: RunComparison) -> RichPage:
    """A rich renderable that takes the console's width, colours and encoding."""
    return RichPage(lambda ink: page(comparison, ink))


def comparison_text(comparison: RunComparison, *, width: int = 100) -> str:
    """The page as plain text, without colour."""
    return plain_text(lambda ink: page(comparison, ink), width=width)


def page(comparison: RunComparison, ink: Ink) -> Page:
    """All lines, none wider than the page."""
    groups = sorted(comparison.groups, key=lambda each: -_decades(each))[:MOST]
    lines = [*_runs(comparison, ink), *_flags(comparison.flags, ink)]
    lines += [*heading(ink, "At the end", tail(comparison)), *_table(comparison.curves, comparison, ink)]
    if groups:
        remark = f"{len(groups)} of {plural(len(comparison.groups), 'group')}, the most changed first"
        lines += [*heading(ink, "Gradient norms at the end", remark), *_table(groups, comparison, ink)]
    lines += [Text(), *wrapped(ink, LEGEND, style="dim")]
    for each in lines:
        each.truncate(ink.width)
    return lines


def letters(comparison: RunComparison) -> list[str]:
    """Short names: A, B, ... Z, 27, 28."""
    return [ascii_uppercase[i] if i < 26 else str(i + 1) for i in range(len(comparison.names))]


def _runs(comparison: RunComparison, ink: Ink) -> Page:
    lines: Page = []
    for letter, name, run in zip(letters(comparison), comparison.names, comparison.runs, strict=True):
        lines += wrapped(ink, f"{printable(name)}: {kind(run)}", lead=f"{letter} ", style="bold")
        lines += wrapped(ink, " ".join(part for part in (beginning(run), course(run)) if part), indent=2)
        lines += wrapped(ink, subject(run), indent=2, style="dim")
    if comparison.parted is not None:
        lines += wrapped(ink, f"The losses differ from step {comparison.parted} on.", indent=2)
    return lines


def tail(comparison: RunComparison) -> str:
    """Over which steps numbers are taken."""
    if comparison.tail is None:
        return "the runs have no training steps in common"
    return f"medians over steps {comparison.tail[0]} to {comparison.tail[1]}, the last tenth that all have"


def _flags(flags: Sequence[RunFlag], ink: Ink) -> Page:
    lines = heading(ink, "Findings")
    for flag in flags:
        levels = [flag.told(index) or "none" for index in range(len(flag.severities))]
        style = {"came": "red", "went": "green"}.get(state(flag), "")
        text = f"{flag.code} {flag.name}: {' → '.join(levels)}"
        lines += wrapped(ink, text, lead=state(flag).ljust(9), lead_style=style)
    return lines if flags else [*lines, *wrapped(ink, "None in any.", indent=2)]


def remarks(differences: Sequence[Difference], comparison: RunComparison) -> list[str]:
    """What the daggers stand for: of each run since when which numbers are not finite."""
    found: dict[tuple[str, str], list[str]] = {}
    for each in differences:
        for letter, value in zip(letters(comparison), each.values, strict=True):
            if value.measured and value.outcome != CONVERGED:
                found.setdefault((letter, value.outcome), []).append(WORDS.get(each.quantity, each.quantity))
    return [
        f"{UNSETTLED} {letter}, {outcome}: {', '.join(found[letter, outcome])}" for letter, outcome in sorted(found)
    ]


def _table(differences: Sequence[Difference], comparison: RunComparison, ink: Ink) -> Page:
    if not differences:
        return wrapped(ink, "Nothing to show.", indent=2)
    rows = [["", *letters(comparison), "change", ""]]
    rows += [
        [
            WORDS.get(each.quantity, each.quantity),
            *(estimate(value, usual=value.label) for value in each.values),
            change(each),
            MARKS[each.moved],
        ]
        for each in differences
    ]
    widths = [max(ink.length(row[column]) for row in rows) for column in range(len(rows[0]))]
    widths[0] = max(8, min(widths[0], LONGEST_NAME, ink.width - sum(widths[1:]) - 2 * len(widths)))
    lines = [_row(row, widths, ink, head=i == 0) for i, row in enumerate(rows)]
    for remark in remarks(differences, comparison):
        lines += wrapped(ink, printable(remark), style="dim")
    return lines


def _row(row: Sequence[str], widths: Sequence[int], ink: Ink, *, head: bool) -> Text:
    style = "bold" if head else "yellow" if row[-1] == MARKS[True] else "dim" if row[-1] == MARKS[None] else ""
    cells = (
        ink.cell(cell, width + 2, right=True, style=style) for cell, width in zip(row[1:], widths[1:], strict=True)
    )
    return line(ink.cell(ink.name(row[0], widths[0]), widths[0], style="bold" if head else ""), *cells)


def _decades(difference: Difference) -> float:
    """How far apart first and last are, in powers of ten."""
    first, last = difference.values[0].value, difference.values[-1].value
    if not first or not last or math.isnan(first) or math.isnan(last):
        return math.inf if first != last else 0.0
    return abs(math.log10(last / first)) if 0 < last / first < math.inf else math.inf
