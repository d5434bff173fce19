"""The chapters of `dynstab.render.topics` for the terminal."""

from __future__ import annotations

from rich.text import Text

from dynstab.core.estimate import Estimate
from dynstab.core.report import Report
from dynstab.render.footnotes import Footnotes
from dynstab.render.ink import Ink, printable
from dynstab.render.numbers import estimate
from dynstab.render.page import Page, heading, line, pairs
from dynstab.render.topics import Topic, TopicTable
from dynstab.render.topics import topics as all_topics


def topics(report: Report, ink: Ink, notes: Footnotes) -> Page:
    return [row for topic in all_topics(report) for row in _topic(topic, ink, notes)]


def entries(topic: Topic, notes: Footnotes) -> list[tuple[str, str]]:
    """The facts that were measured and the remarks, by name; what was not measured becomes a footnote."""
    shown = []
    for name, quantity, unit in topic.facts:
        notes.add(quantity, name)
        if quantity.measured:
            shown.append((name, f"{estimate(quantity)} {unit}".rstrip()))
    return [*shown, *((name, printable(text)) for name, text in topic.remarks)]


def cell(value: str | Estimate) -> str:
    return estimate(value) if isinstance(value, Estimate) else printable(value)


def _topic(topic: Topic, ink: Ink, notes: Footnotes) -> Page:
    page = heading(ink, topic.title, topic.remark) + pairs(ink, entries(topic, notes))
    for table in topic.tables:
        page += [Text(), line("  ", ink.text(table.title, "dim")), *_table(table, ink)]
    return page


def _table(table: TopicTable, ink: Ink) -> Page:
    rows = [list(table.heads), *([cell(value) for value in row] for row in table.rows)]
    widths = [max(ink.length(row[column]) for row in rows) for column in range(len(table.heads))]
    return [
        line(
            "  ",
            *(
                _cell(ink, text, width, column, index)
                for column, (text, width) in enumerate(zip(row, widths, strict=True))
            ),
        )
        for index, row in enumerate(rows)
    ]


def _cell(ink: Ink, text: str, width: int, column: int, row: int) -> Text:
    """The first column names the row and stands left, numbers stand right."""
    return ink.cell(text, width + 2, right=column > 0, style="" if row else "bold")
