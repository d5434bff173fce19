"""A comparison on the console: verdicts, findings that came and went, numbers that moved."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase

from rich.text import Text

from dynstab.core.comparison import Comparison, Difference, FlagPresence
from dynstab.render.ink import Ink, printable
from dynstab.render.numbers import MISSING, estimate, number, plural
from dynstab.render.page import Page, RichPage, heading, line, plain_text, wrapped
from dynstab.render.sections.verdict import subject
from dynstab.render.table import QUANTITIES

MOST = 30
"""Numbers of steps that are listed; the JSON and the HTML page hold all."""
LONGEST_NAME = 40
MARKS = {True: "≠", False: "", None: "?"}
LEGEND = "≠ differs by more than the errors · ? cannot be told: missing, without an error, or a bound"
_HEADINGS = {quantity.field: quantity.heading for quantity in QUANTITIES}
_WORDS = {
    **{quantity.field: quantity.words for quantity in QUANTITIES},
    "log_gradient_gain": "G, ln relative gradient gain",
    "median_log_gradient_gain": "median of G over inputs",
    "null_log_gain": "G of finite width alone",
    "raw_log_gradient_gain": "ln raw gradient gain",
    "log_signal_gain": "ln signal gain",
    "refinement_order": "order under refinement",
    "underflow_depth": "steps to underflow",
    "leading_qr_exponent": "leading QR exponent",
    "leading_finite_time_exponent": "leading finite-time exponent",
}


def comparison_page(comparison: Comparison) -> RichPage:
    """A rich renderable that takes the console's width, colours and encoding."""
    return RichPage(lambda ink: page(comparison, ink))


def comparison_text(comparison: Comparison, *, width: int = 100) -> str:
    """The page as plain text, without colour."""
    return plain_text(lambda ink: page(comparison, ink), width=width)


def page(comparison: Comparison, ink: Ink) -> Page:
    """All lines, none wider than the page."""
    lines = _reports(comparison, ink)
    lines += [*heading(ink, "Findings"), *(_flag(flag, ink) for flag in comparison.flags)]
    lines += [] if comparison.flags else wrapped(ink, "None in any.", indent=2)
    lines += heading(ink, "Whole network")
    lines += _table([(words(each), each) for each in comparison.network], letters(comparison), ink)
    lines += heading(ink, "Steps", tally(comparison))
    chosen = most_moved(comparison)
    titles = [f"{_heading(each)} of {comparison.steps[each.step or 0].name}" for each in chosen]
    lines += _table(list(zip(titles, chosen, strict=True)), letters(comparison), ink)
    meanings = {_heading(each): f"{_heading(each)}: {words(each)}" for each in chosen}
    lines += [Text(), *wrapped(ink, " · ".join([LEGEND, *meanings.values()]), style="dim")]
    for each in lines:
        each.truncate(ink.width)
    return lines


def letters(comparison: Comparison) -> list[str]:
    """Short names: A, B, ... Z, 27, 28."""
    return [ascii_uppercase[i] if i < 26 else str(i + 1) for i in range(len(comparison.names))]


def words(difference: Difference) -> str:
    """What a quantity is called for people."""
    return _WORDS.get(difference.quantity, difference.quantity.replace("_", " "))


def _heading(difference: Difference) -> str:
    return _HEADINGS.get(difference.quantity, words(difference))


def tally(comparison: Comparison) -> str:
    """How many steps are shared and how many of their numbers moved."""
    shared = sum(None not in step.indices for step in comparison.steps)
    moved = sum(each.moved is True for each in comparison.differences)
    return (
        f"{shared} of {plural(len(comparison.steps), 'step')} in all reports; "
        f"{moved} of {plural(len(comparison.differences), 'number')} moved"
    )


def most_moved(comparison: Comparison) -> list[Difference]:
    """The numbers of steps that moved, by how far in relation to their size; at most `MOST`."""
    moved = [each for each in comparison.differences if each.moved]
    return sorted(moved, key=lambda each: -_share(each))[:MOST]


def change(difference: Difference) -> str:
    """Last less first, with its sign."""
    if difference.change is None:
        return MISSING
    return ("+" if difference.change > 0 else "") + number(difference.change)


def state(flag: FlagPresence) -> str:
    """Whether a finding came, went or stayed."""
    if flag.came or flag.went:
        return "came" if flag.came else "went"
    return "stayed" if len(set(flag.severities)) == 1 else "changed"


def _share(difference: Difference) -> float:
    sizes = [abs(value.value) for value in difference.values if value.value is not None]
    return abs(difference.change) / (max(sizes) or 1.0) if difference.change is not None else float("inf")


def _reports(comparison: Comparison, ink: Ink) -> Page:
    lines: Page = []
    for letter, name, report in zip(letters(comparison), comparison.names, comparison.reports, strict=True):
        lines += wrapped(ink, f"{printable(name)}: {report.verdict.kind}", lead=f"{letter} ", style="bold")
        lines += wrapped(ink, report.verdict.summary, indent=2)
        lines += wrapped(ink, subject(report), indent=2, style="dim")
    return lines


def _flag(flag: FlagPresence, ink: Ink) -> Text:
    style = {"came": "red", "went": "green"}.get(state(flag), "")
    levels = " → ".join("none" if severity is None else severity.value for severity in flag.severities)
    return line(ink.cell(state(flag), 9, style=style), ink.text(f"{flag.code} {flag.name}: {levels}"))


def _table(entries: Sequence[tuple[str, Difference]], heads: Sequence[str], ink: Ink) -> Page:
    if not entries:
        return wrapped(ink, "Nothing to show.", indent=2)
    rows = [["", *heads, "change", ""]]
    rows += [[title, *map(estimate, each.values), change(each), MARKS[each.moved]] for title, each in entries]
    widths = [max(ink.length(row[column]) for row in rows) for column in range(len(rows[0]))]
    widths[0] = max(8, min(widths[0], LONGEST_NAME, ink.width - sum(widths[1:]) - 2 * len(widths)))
    return [
        line(
            ink.cell(row[0], widths[0], style="" if i else "bold"),
            *(
                ink.cell(cell, width + 2, right=True, style=_style(row) if i else "bold")
                for cell, width in zip(row[1:], widths[1:], strict=True)
            ),
        )
        for i, row in enumerate(rows)
    ]


def _style(row: Sequence[str]) -> str:
    return "yellow" if row[-1] == MARKS[True] else "dim" if row[-1] == MARKS[None] else ""
