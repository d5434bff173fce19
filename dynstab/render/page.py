"""A page is a list of lines, each no wider than the page."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, chop_cells
from rich.console import Console, ConsoleOptions
from rich.text import Text

from dynstab.core.flag import Severity
from dynstab.render.ink import Ink

Page = list[Text]

SEVERITY_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}
SEVERITY_MARKS = {Severity.ERROR: "✖", Severity.WARNING: "▲", Severity.INFO: "●"}


@dataclass(frozen=True)
class RichPage:
    """A page that rich prints in the console's width and encoding."""

    write: Callable[[Ink], Page]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        for each in self.write(Ink(width=options.max_width, ascii=Ink.of(console).ascii)):
            each.rstrip()
            each.end = "\n"
            yield each


def plain_text(write: Callable[[Ink], Page], *, width: int) -> str:
    """A page without colour."""
    ink = Ink.of(Console(file=io.StringIO(), width=width, _environ={}))
    return "".join(each.plain.rstrip() + "\n" for each in write(ink))


def line(*parts: Text | str) -> Text:
    """Parts in a row."""
    return Text.assemble(*parts, end="", no_wrap=True)


def heading(ink: Ink, title: str, remark: str = "") -> Page:
    """A section's title and, behind it, what one needs to read it."""
    remarks = _folded(ink.plain(remark), max(1, ink.width - ink.length(title) - 2)) if remark else []
    if len(remarks) > 1:
        return [Text(), ink.text(title, "bold"), *wrapped(ink, remark, indent=2, style="dim")]
    tail = Text("  " + remarks[0], style="dim") if remarks else Text()
    return [Text(), line(ink.text(title, "bold"), tail)]


def wrapped(ink: Ink, text: str, *, indent: int = 0, lead: str = "", style: str = "", lead_style: str = "") -> Page:
    """`text` over as many lines as it takes, behind `indent` spaces and a `lead` on the first line."""
    lead = ink.plain(lead)
    margin = " " * min(indent + cell_len(lead), ink.width // 2)
    parts = _folded(ink.plain(text), max(1, ink.width - len(margin)))
    first = line(" " * indent, Text(lead, style=lead_style or style), Text(parts[0], style=style))
    return [first, *(line(margin, Text(part, style=style)) for part in parts[1:])]


def pairs(ink: Ink, entries: Sequence[tuple[str, str]]) -> Page:
    """Labels, aligned, and what is to be said of each."""
    entries = [(label, text) for label, text in entries if text]
    width = max((ink.length(label) for label, _ in entries), default=0)
    page: Page = []
    for label, text in entries:
        lead = ink.plain(label).ljust(width) + "  "
        page += wrapped(ink, text, indent=2, lead=lead, lead_style="dim")
    return page


def _folded(text: str, width: int) -> list[str]:
    """Words in lines of at most `width` columns; a word that is longer than a line is cut."""
    lines: list[str] = []
    pieces = [piece for word in text.split() for piece in chop_cells(word, width)]
    for word in pieces:
        if lines and cell_len(lines[-1]) + 1 + cell_len(word) <= width:
            lines[-1] += " " + word
        else:
            lines.append(word)
    return lines or [""]
