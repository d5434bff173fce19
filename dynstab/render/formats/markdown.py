"""A report in GitHub's Markdown: for pull requests and for pages that are committed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import zip_longest

from dynstab.core.flag import Flag, Severity
from dynstab.core.report import Report
from dynstab.render.footnotes import Footnotes, ranges
from dynstab.render.ink import printable
from dynstab.render.numbers import MARKS, MEANINGS, brief, estimate, evidence, span
from dynstab.render.sections.exponents import MOST, brackets, further, spectra
from dynstab.render.sections.findings import by_severity, tally
from dynstab.render.sections.network import facts, remarks
from dynstab.render.sections.provenance import circumstances
from dynstab.render.sections.topics import cell, entries
from dynstab.render.sections.verdict import NOTHING, confidence, incomplete, subject
from dynstab.render.table import QUANTITIES, Gap, Quantity, Row, condensed, meaning, note_missing, rows, usual_label
from dynstab.render.topics import Topic, topics

_SIGNS = {
    "stable": "🟢", "exploding": "🔴", "vanishing": "🟣", "mixed": "🟠", "inconclusive": "⚪",
    Severity.ERROR: "🔴", Severity.WARNING: "🟠", Severity.INFO: "🔵",
}  # fmt: skip
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$&])")


def render(report: Report, *, all_steps: bool = False) -> str:
    """The verdict and the findings in full, the tables behind a click."""
    notes = Footnotes()
    blocks = [
        *_verdict(report),
        f"## Findings: {tally(report)}",
        *(_flag(flag) for flag in by_severity(report)),
        *_network(report, notes),
        *(block for topic in topics(report) for block in _topic(topic, notes)),
        *_steps(report, notes, all_steps),
        *_exponents(report, notes),
        *_provenance(report, notes),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def escape(text: str) -> str:
    """Text that GitHub shows as it is: no markup, no HTML, no mention, one line."""
    # GitHub looks for mentions after it has dropped backslashes; a comment parts the sign from the name.
    return _SPECIAL.sub(r"\\\1", printable(text)).replace("@", "@<!-- -->")


def _verdict(report: Report) -> list[str]:
    found = report.verdict
    return [
        f"# {_SIGNS.get(found.kind, '⚪')} {escape(found.kind.capitalize())}",
        f"**{escape(found.summary)}**",
        "  \n".join(escape(line) for line in (confidence(report), subject(report)) if line),
        f"> {escape(incomplete(report))}" if incomplete(report) else "",
    ]


def _flag(flag: Flag) -> str:
    place = f" · {escape(flag.where)}" if flag.where else ""
    lines = [f"### {_SIGNS[flag.severity]} {escape(flag.code)} {escape(flag.name)}{place}", "", escape(flag.message)]
    if flag.advice:
        lines += ["", *(f"- {escape(advice)}" for advice in flag.advice)]
    if flag.evidence:
        rows = [[escape(name), escape(evidence(value))] for name, value in flag.evidence.items()]
        lines += ["", _folded("Evidence", _table(["number", "value"], rows))]
    return "\n".join(lines)


def _network(report: Report, notes: Footnotes) -> list[str]:
    entries = []
    for name, quantity, unit in facts(report):
        notes.add(quantity, name)
        if quantity.measured:
            entries.append([escape(name), escape(f"{estimate(quantity)} {unit}")])
    entries += [[escape(name), escape(text)] for name, text in remarks(report)]
    return ["## Whole network", _table(["quantity", "value"], entries)] if entries else []


def _topic(topic: Topic, notes: Footnotes) -> list[str]:
    shown = [[escape(name), escape(text)] for name, text in entries(topic, notes)]
    tables = [
        _folded(
            escape(table.title),
            _table(list(map(escape, table.heads)), [[escape(cell(v)) for v in row] for row in table.rows]),
        )
        for table in topic.tables
    ]
    return [
        f"## {escape(topic.title)}",
        escape(topic.remark),
        _table(["quantity", "value"], shown) if shown else "",
        *tables,
    ]


def _steps(report: Report, notes: Footnotes, all_steps: bool) -> list[str]:
    table = rows(report)
    quantities = [quantity for quantity in QUANTITIES if any(quantity.of(row.measured).measured for row in table)]
    note_missing(table, quantities, notes)
    usual = {quantity.field: usual_label(quantity.of(row.measured) for row in table) for quantity in quantities}
    marks = {field: MARKS[label] if label else "" for field, label in usual.items()}
    head = ["", "step", "kind", *(f"{quantity.heading} {marks[quantity.field]}" for quantity in quantities)]
    body = []
    for entry in condensed(report, all_steps=all_steps):
        if isinstance(entry, Gap):
            body.append(_gap(entry, quantities))
            continue
        sign = _SIGNS[entry.flag.severity] + " " if entry.flag else ""
        cells = [estimate(quantity.of(entry.measured), usual=usual[quantity.field]) for quantity in quantities]
        body.append([str(entry.index), sign + escape(entry.name), escape(entry.kind), *map(escape, cells)])
    if not body:
        return ["## Steps", NOTHING]
    inputs = report.provenance.samples
    legend = " · ".join(f"{quantity.heading}: {meaning(quantity, table, inputs)}" for quantity in quantities)
    return ["## Steps", _folded(f"{len(table)} steps", f"{_table(list(map(escape, head)), body)}\n\n{escape(legend)}")]


def _gap(gap: Gap, quantities: Sequence[Quantity]) -> list[str]:
    return [
        ranges(row.index for row in gap.rows),
        f"*{len(gap.rows)} steps like these*",
        "",
        *(_range(gap.rows, quantity) for quantity in quantities),
    ]


def _range(members: Iterable[Row], quantity: Quantity) -> str:
    values = [value for row in members if (value := quantity.of(row.measured).value) is not None]
    return escape(span(values)) if values else "–"


def _exponents(report: Report, notes: Footnotes) -> list[str]:
    named = spectra(report)
    if not named:
        return []
    for each in named:
        notes.add_series(each.name, enumerate(each.values, 1))
    body = [
        [str(index), *map(escape, cells)]
        for index, cells in enumerate(zip_longest(*(each.cells(MOST) for each in named), fillvalue=""), 1)
    ]
    table = _table(["", *(escape(each.title) for each in named)], body)
    remark = ", ".join(filter(None, (report.measurements.lyapunov.unit, brackets(report))))
    return [f"## Exponents, {escape(remark)}", table, escape(further(report))]


def _provenance(report: Report, notes: Footnotes) -> list[str]:
    checks = [
        f"- {'✅' if check.passed else '❌'} {escape(check.check)}"
        f"{'' if check.error is None else f', off by {brief(check.error)}'}"
        f"{f' ({escape(check.detail)})' if check.detail else ''}"
        for check in report.verification
    ]
    facts = [f"- {label}: {escape(text)}" for label, text in circumstances(report) if text]
    legend = " · ".join(f"{MARKS[label]} {meaning}" for label, meaning in MEANINGS.items())
    reasons = [f"- {escape(note)}" for note in notes.lines()]
    return [
        "## How it was measured",
        "\n".join(checks + facts),
        _folded("Marks and missing numbers", "\n\n".join(filter(None, (escape(legend), "\n".join(reasons))))),
    ]


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _folded(summary: str, content: str) -> str:
    return f"<details><summary>{summary}</summary>\n\n{content}\n\n</details>"
