"""A system that was found but not measured: its states and steps, the checks, and the cost of an analysis."""

from __future__ import annotations

from rich.text import Text

from dynstab.core.inspection import Inspection
from dynstab.core.report import StepInfo
from dynstab.render.ink import Ink
from dynstab.render.numbers import count, duration, number, size
from dynstab.render.page import Page, RichPage, heading, line, pairs, plain_text, wrapped
from dynstab.render.sections.provenance import capture, checks
from dynstab.render.sections.verdict import NOTHING, described

LONGEST_NAME = 60
ENDS = 3
"""Steps at either end of a recurrence that are listed where all are alike but for the time."""
_HEADINGS = ("step", "kind", "state after it", "entries", "parameters")


def inspection_page(inspection: Inspection) -> RichPage:
    """A rich renderable that takes the console's width, colours and encoding."""
    return RichPage(lambda ink: page(inspection, ink))


def inspection_text(inspection: Inspection, *, width: int = 100) -> str:
    """The page as plain text, without colour."""
    return plain_text(lambda ink: page(inspection, ink), width=width)


def page(inspection: Inspection, ink: Ink) -> Page:
    """All lines, none wider than the page."""
    cost, system = inspection.cost, inspection.system
    lines = wrapped(ink, described(inspection.model, system), style="bold")
    lines += pairs(
        ink,
        [
            ("inputs", "; ".join(system.inputs)),
            ("capture", capture(system, inspection.routes)),
            ("notes", "; ".join(system.notes)),
        ],
    )
    lines += [*heading(ink, "Steps", _source(inspection)), *_steps(inspection, ink)]
    lines += [*heading(ink, "Verification of the capture"), *checks(inspection.verification, ink)]
    lines += heading(ink, "Cost of an analysis", f"at effort {inspection.effort}, from one timed product")
    lines += pairs(
        ink,
        [
            ("time", f"about {duration(cost.seconds)} of products; decompositions of dense Jacobians come on top"),
            ("products", f"{count(cost.products)}, each {number(1000 * cost.seconds_per_product)} ms"),
            ("memory", f"{size(cost.bytes_per_tangent)} a tangent, {size(cost.recorded_bytes)} for the recorded run"),
        ],
    )
    for each in lines:
        each.truncate(ink.width)
    return lines


def _source(inspection: Inspection) -> str:
    """The first state, from which the steps start."""
    states = inspection.system.states
    if not states:
        return "no state was found"
    return f"from state 0, {states[0].name} {_shape(states[0].shape)}, {count(states[0].size)} entries"


def _steps(inspection: Inspection, ink: Ink) -> Page:
    """One line a step; the name gives way where the page is narrow."""
    system = inspection.system
    if not system.steps:
        return wrapped(ink, NOTHING, indent=2)
    states = {state.index: state for state in system.states}
    table: list[tuple[str, ...]] = [_HEADINGS]
    for step in system.steps:
        state = states.get(step.target)
        shape, entries = (_shape(state.shape), count(state.size)) if state else ("", "")
        table.append((step.name, _kind(step), shape, entries, count(step.parameters)))
    widths = [max(ink.length(row[column]) for row in table) for column in range(len(_HEADINGS))]
    number_width = len(str(system.steps[-1].index))
    room = ink.width - number_width - sum(width + 2 for width in widths[1:]) - 1
    widths[0] = max(8, min(widths[0], LONGEST_NAME, room))
    labels = ["", *(str(step.index) for step in system.steps)]
    lines = [_row(label, row, number_width, widths, ink) for label, row in zip(labels, table, strict=True)]
    alike = system.axis == "time" and len({row[1:] for row in table[1:]}) == 1
    return _without_middle(lines, number_width, ink) if alike else lines


def _without_middle(lines: list[Text], number_width: int, ink: Ink) -> Page:
    """The heading and the steps at both ends, and how many like them lie between."""
    first, last = ENDS, len(lines) - ENDS - 2
    if last - first < ENDS:
        return lines
    mark = ink.cell("⋮", number_width, right=True, style="dim")
    gap = line(mark, " ", ink.text(f"{last - first + 1} steps like these, {first}-{last}", "dim"))
    return [*lines[: ENDS + 1], gap, *lines[-ENDS:]]


def _row(label: str, row: tuple[str, ...], number_width: int, widths: list[int], ink: Ink) -> Text:
    style = "" if label else "bold"
    name, kind, *others = row
    return line(
        ink.cell(label, number_width, right=True, style="dim"),
        " ",
        ink.cell(ink.name(name, widths[0]), widths[0] + 2, style=style),
        ink.cell(kind, widths[1], style=style or "dim"),
        *(ink.cell(cell, width + 2, right=True, style=style) for cell, width in zip(others, widths[2:], strict=True)),
    )


def _kind(step: StepInfo) -> str:
    """The kind, with the residual coefficient where it is not 1."""
    coefficient = step.residual_coefficient
    return step.kind if coefficient in (None, 1.0) else f"{step.kind} {number(coefficient)}"


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "scalar"
