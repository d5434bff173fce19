"""The table of steps: as many columns as the page holds, a hundred steps on one screen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from dynstab.core.estimate import Label
from dynstab.core.report import Report
from dynstab.render.bars import diverging, finite
from dynstab.render.footnotes import Footnotes, ranges
from dynstab.render.ink import Ink
from dynstab.render.numbers import MARKS, estimate, natural_log, span
from dynstab.render.page import SEVERITY_MARKS, SEVERITY_STYLES, Page, heading, line, wrapped
from dynstab.render.sections.verdict import NOTHING
from dynstab.render.table import (
    QUANTITIES,
    Gap,
    Quantity,
    Row,
    common_prefix,
    condensed,
    meaning,
    note_missing,
    rows,
    usual_label,
)

ESSENTIAL = 3
SHORTEST_NAME, RESERVED_NAME, LONGEST_NAME = 8, 26, 48
HALF_BAR = 5
BAR = 2 * HALF_BAR + 1
LEAST_FACTOR = 2.0
"""A full bar stands for this factor at least: steps that keep the norm shall have short bars."""
_KINDS = {"residual": "res", "plain": "plain", "transition": "trans"}


@dataclass(frozen=True, kw_only=True)
class Column:
    """A quantity as text: one cell a step."""

    quantity: Quantity
    heading: str
    cells: dict[int, str]
    width: int


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where things stand in a line of the table. `prefix` is cut from every name, `scale` is ln of a full bar."""

    index: int
    name: int
    prefix: str
    columns: tuple[Column, ...]
    scale: float


def steps(report: Report, ink: Ink, notes: Footnotes, *, all_steps: bool = False) -> Page:
    """The table's lines, with the legend of its columns; one line where there are no steps."""
    table = rows(report)
    if not table:
        return [*heading(ink, "Steps"), *wrapped(ink, NOTHING, indent=2)]
    shown = condensed(report, all_steps=all_steps)
    layout = _layout(table, [row for row in shown if isinstance(row, Row)], ink)
    essential = {quantity.field for quantity in QUANTITIES if quantity.rank <= ESSENTIAL}
    if report.system.axis == "time":
        essential -= {"logarithmic_norm"}  # a field has one, which the chapter of the flow shows; a map has none
    fields = essential | {column.quantity.field for column in layout.columns}
    note_missing(table, [quantity for quantity in QUANTITIES if quantity.field in fields], notes)
    page = [*heading(ink, "Steps", _remark(layout, shown, len(table))), _head(layout, ink)]
    page += [_gap(entry, layout, ink) if isinstance(entry, Gap) else _row(entry, layout, ink) for entry in shown]
    return page + _legend(layout, table, report.provenance.samples, ink)


def _layout(table: Sequence[Row], shown: Sequence[Row], ink: Ink) -> Layout:
    """Names first: they get what they need, up to a point, then columns by rank, then names what is left."""
    index = max(len(str(row.index)) for row in table)
    room = ink.width - (index + len(" ! ") + 2 + len("plain") + 2 + BAR)
    prefix = common_prefix([row.name for row in table])
    wanted = max(ink.length(_name(row, prefix)) for row in table)
    columns = _columns(table, shown, ink, room - min(wanted, RESERVED_NAME))
    room = max(SHORTEST_NAME, room - sum(column.width + 2 for column in columns))
    whole = max(ink.length(row.name) for row in table)
    if whole <= min(room, LONGEST_NAME):
        prefix, wanted = "", whole
    growth = finite([natural_log(row.measured.norm_growth.value) for row in table])
    return Layout(
        index=index,
        name=min(wanted, LONGEST_NAME, room),
        prefix=prefix,
        columns=tuple(columns),
        scale=max([math.log(LEAST_FACTOR), *map(abs, growth)]),
    )


def _columns(table: Sequence[Row], shown: Sequence[Row], ink: Ink, room: int) -> list[Column]:
    """The measured quantities that fit into `room`, by rank, in their own order; errors go where space is short."""
    measured = [quantity for quantity in QUANTITIES if any(quantity.of(row.measured).measured for row in table)]
    columns: list[Column] = []
    for errors in (True, False):
        columns = [_column(quantity, table, shown, ink, errors) for quantity in measured]
        if sum(column.width + 2 for column in columns if column.quantity.rank <= ESSENTIAL) <= room:
            break
    kept: set[str] = set()
    for column in sorted(columns, key=lambda column: column.quantity.rank):
        if column.width + 2 <= room:
            kept.add(column.quantity.field)
            room -= column.width + 2
    return [column for column in columns if column.quantity.field in kept]


def _column(quantity: Quantity, table: Sequence[Row], shown: Sequence[Row], ink: Ink, errors: bool) -> Column:
    """A column whose heading bears the mark that most of its numbers have."""
    usual: Label | None = usual_label(quantity.of(row.measured) for row in table)
    cells = {row.index: estimate(quantity.of(row.measured), usual=usual, error=errors) for row in shown}
    title = f"{quantity.heading} {MARKS[usual]}" if usual else quantity.heading
    return Column(quantity=quantity, heading=title, cells=cells, width=max(map(ink.length, (title, *cells.values()))))


def _remark(layout: Layout, shown: Sequence[Row | Gap], total: int) -> str:
    hidden = sum(len(entry.rows) for entry in shown if isinstance(entry, Gap))
    parts = [f"{total}, of which {hidden} in summary" if hidden else str(total)]
    return ", ".join(parts + ([f"names within {layout.prefix.removesuffix('.')}"] if layout.prefix else []))


def _name(row: Row, prefix: str) -> str:
    return "…" + row.name.removeprefix(prefix) if prefix else row.name


def _head(layout: Layout, ink: Ink) -> Text:
    factor = f"{math.exp(layout.scale):.2g}" if layout.scale < math.log(1e3) else f"e^{layout.scale:.0f}"
    ends = "÷" + factor + ("×" + factor).rjust(max(len(factor) + 2, BAR - 1 - len(factor)))
    return line(
        ink.cell("", layout.index + 3),
        ink.cell("step", layout.name + 2, style="bold"),
        ink.cell("kind", len("plain"), style="bold"),
        *(ink.cell(column.heading, column.width + 2, right=True, style="bold") for column in layout.columns),
        "  ",
        ink.cell(ends, BAR, style="dim"),
    )


def _row(row: Row, layout: Layout, ink: Ink) -> Text:
    style = SEVERITY_STYLES[row.flag.severity] if row.flag else ""
    mark = SEVERITY_MARKS[row.flag.severity] if row.flag else ""
    growth = natural_log(row.measured.norm_growth.value)
    return line(
        ink.cell(str(row.index), layout.index, right=True, style="dim"),
        " ",
        ink.cell(mark, 2, style=style),
        ink.cell(ink.name(_name(row, layout.prefix), layout.name), layout.name + 2, style=style),
        ink.cell(_KINDS.get(row.kind, row.kind), len("plain"), style="dim"),
        *(ink.cell(column.cells[row.index], column.width + 2, right=True, style=style) for column in layout.columns),
        "  ",
        ink.text(diverging(growth, layout.scale, HALF_BAR), style or "cyan"),
    )


def _gap(gap: Gap, layout: Layout, ink: Ink) -> Text:
    """Neighbours in one line: how many, which, and the ranges of their numbers as far as the page holds them."""
    text = f"{len(gap.rows)} steps like these, {ranges(row.index for row in gap.rows)}"
    separator = ": "
    for column in sorted(layout.columns, key=lambda column: column.quantity.rank):
        estimates = [column.quantity.of(row.measured) for row in gap.rows]
        values = [estimate.value for estimate in estimates if estimate.value is not None]
        longer = f"{text}{separator}{column.quantity.heading} {span(values)}" if values else text
        if ink.length(longer) > ink.width - layout.index - 3:
            break
        text, separator = longer, " · " if values else separator
    return line(ink.cell("⋮", layout.index, right=True, style="dim"), "   ", ink.text(text, "dim italic"))


def _legend(layout: Layout, table: Sequence[Row], inputs: int, ink: Ink) -> Page:
    entries = [f"{column.quantity.heading}: {meaning(column.quantity, table, inputs)}" for column in layout.columns]
    growth = any(column.quantity.field == "norm_growth" for column in layout.columns)
    bar = "bar: growth" if growth else "bar: growth of the state's RMS norm"
    return wrapped(ink, " · ".join([*entries, bar]), indent=2, style="dim")
