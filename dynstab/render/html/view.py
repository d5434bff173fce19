"""What a page says, ready to be set: every string is plain text, the template escapes it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from dynstab.core.estimate import CONVERGED, Estimate
from dynstab.core.flag import Flag, Severity
from dynstab.core.report import Report
from dynstab.render.footnotes import Footnotes, ranges
from dynstab.render.ink import printable
from dynstab.render.numbers import MARKS, brief, estimate, evidence, number, plural
from dynstab.render.sections.exponents import brackets, spectra
from dynstab.render.sections.findings import by_severity
from dynstab.render.sections.network import facts, remarks
from dynstab.render.sections.topics import cell, entries
from dynstab.render.sections.verdict import incomplete
from dynstab.render.table import QUANTITIES, meaning, note_missing, rows, usual_label
from dynstab.render.topics import topics

SIGNS = {"stable": "✓", "exploding": "↑", "vanishing": "↓", "mixed": "↕", "inconclusive": "?"}
SEVERITY_SIGNS = {Severity.ERROR: "✖", Severity.WARNING: "▲", Severity.INFO: "●"}
FEW_STEPS = 12
LARGEST_LOG = 690.0


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One of the answers at the head of the page."""

    question: str
    answer: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table. Each of `rows` is (key, cells); `heads` are (heading, what it means), `fields` their names in JSON."""

    heads: tuple[tuple[str, str], ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    fields: tuple[str, ...] = ()


def tiles(report: Report) -> list[Tile]:
    """Where, how bad, how sure."""
    network, verdict, samples = report.measurements.network, report.verdict, report.provenance.samples
    worst = [flag for flag in by_severity(report) if flag.severity is not Severity.INFO]
    where = _whole(printable(worst[0].where)) if worst else "nowhere"
    cause = f"{worst[0].code} {worst[0].name}" if worst else "no error, no warning"
    margin = "" if verdict.margin is None else f"{number(verdict.margin)} nat from the nearest limit, "
    return [
        Tile(question="Where", answer=where, detail=cause),
        _gain_tile("Gradient, last state to first", network.log_gradient_gain),
        _gain_tile("Signal, first state to last", network.log_signal_gain),
        Tile(
            question="How sure",
            answer=f"{verdict.confidence} confidence",
            detail=f"{margin}over {plural(samples, 'input')}",
        ),
    ]


def _evidence(value: object) -> str:
    """A piece of evidence; a list of indices in runs."""
    if isinstance(value, list) and value and all(type(each) is int for each in value):
        return ranges(value)
    return printable(evidence(value))


def _whole(where: str) -> str:
    return "the whole network" if where == "network" else where


def _gain_tile(question: str, log: Estimate) -> Tile:
    if log.value is None:
        return Tile(question=question, answer="not measured", detail="" if log.outcome == CONVERGED else log.outcome)
    if math.isnan(log.value):
        return Tile(question=question, answer="not finite", detail=log.outcome)
    return Tile(question=question, answer=factor(log.value, log.error), detail=f"ln {estimate(log, always=True)} nat")


def factor(log: float, error: float | None = None) -> str:
    """e^log as a factor, to the digit that the error of the logarithm allows: × 0.91, ÷ 1.2e9; huge ones as a power."""
    if not math.isfinite(log):
        return f"× {number(math.inf if log > 0 else 0.0 if log < 0 else log)}"
    if abs(log) > LARGEST_LOG:
        return f"× e^{log:.0f}"
    size = math.exp(log if log > -0.7 else -log)
    return f"{'×' if log > -0.7 else '÷'} {number(size, error and size * error)}"


def flags(report: Report) -> list[dict[str, Any]]:
    """The findings, most severe first."""
    return [_flag(flag) for flag in by_severity(report)]


def _flag(flag: Flag) -> dict[str, Any]:
    few = len(flag.steps) <= FEW_STEPS and flag.where != "network"
    return {
        "code": printable(flag.code),
        "name": printable(flag.name),
        "severity": flag.severity.value,
        "sign": SEVERITY_SIGNS[flag.severity],
        "where": "" if flag.steps and flag.where.startswith("step") else _whole(printable(flag.where)),
        "message": printable(flag.message),
        "advice": [printable(advice) for advice in flag.advice],
        "evidence": [(name.replace("_", " "), _evidence(value)) for name, value in flag.evidence.items()],
        "steps": list(flag.steps) if few else [],
        "span": "" if few or flag.where == "network" else ranges(flag.steps),
    }


def step_table(report: Report, notes: Footnotes) -> Table:
    """Every step with every quantity that was measured on any."""
    table = rows(report)
    shown = [quantity for quantity in QUANTITIES if any(quantity.of(row.measured).measured for row in table)]
    note_missing(table, shown, notes)
    usual = {quantity.field: usual_label(quantity.of(row.measured) for row in table) for quantity in shown}
    marks = {field: f" {MARKS[label]}" if label else "" for field, label in usual.items()}
    inputs = report.provenance.samples
    heads = [(f"{each.heading}{marks[each.field]}", meaning(each, table, inputs)) for each in shown]
    return Table(
        heads=tuple(heads),
        fields=tuple(quantity.field for quantity in shown),
        rows=tuple(
            (row.index, tuple(estimate(quantity.of(row.measured), usual=usual[quantity.field]) for quantity in shown))
            for row in table
        ),
    )


def step_heads(report: Report) -> dict[int, dict[str, str]]:
    """Of each step what stands before the numbers."""
    return {
        row.index: {
            "name": printable(row.name),
            "kind": row.kind,
            "severity": row.flag.severity.value if row.flag else "",
            "sign": SEVERITY_SIGNS[row.flag.severity] if row.flag else "",
        }
        for row in rows(report)
    }


_STATE_COLUMNS = (
    ("gradient, relative", "relative gradient gain from the output to the state", "relative_gain"),
    ("gradient", "gradient gain from the output to the state", "gain"),
    ("least", "least gain over all losses", "lower"),
    ("greatest", "greatest gain over all losses", "upper"),
    ("product", "product of the largest singular values of the steps", "product_upper"),
    ("RMS", "root mean square of the entries", "rms"),
    ("rank", "effective rank, as a share of the largest possible", "effective_rank"),
    ("similarity", "mean cosine between tokens", "token_similarity"),
)


def state_table(report: Report, notes: Footnotes) -> Table:
    """Every state with its gradient, its size and its tokens; the first cell is its name."""
    parts: dict[int, dict[str, Estimate]] = {state.index: {} for state in report.system.states}
    for field_owner, index in (
        *((point, point.state) for point in report.measurements.gradient_flow),
        *((state, state.index) for state in report.measurements.states),
    ):
        found = {name: value for name, value in vars(field_owner).items() if isinstance(value, Estimate)}
        parts.setdefault(index, {}).update(found)
    absent = Estimate.unmeasured("not measured")
    known = [column for column in _STATE_COLUMNS if any(own.get(column[2], absent).measured for own in parts.values())]
    for _, words, field in known:
        notes.add_series(words, [(index, own.get(field, absent)) for index, own in parts.items()], "state")
    names = {state.index: printable(state.name) for state in report.system.states}
    return Table(
        heads=(("state", ""), *((heading, words) for heading, words, _ in known)),
        rows=tuple(
            (index, (names.get(index, ""), *(estimate(own.get(field, absent)) for _, _, field in known)))
            for index, own in sorted(parts.items())
        ),
    )


def exponent_table(report: Report, notes: Footnotes) -> Table:
    """The spectra of the whole, one row an index."""
    named = spectra(report)
    for each in named:
        notes.add_series(each.name, enumerate(each.values, 1))
    rows = zip_longest(*(each.cells() for each in named), fillvalue="")
    return Table(heads=tuple((each.title, "") for each in named), rows=tuple(enumerate(rows, 1)))


def exponent_caption(report: Report) -> str:
    """What the table of exponents holds."""
    caption = f"Exponents, {report.measurements.lyapunov.unit}, and singular values of the whole network"
    return "; ".join(filter(None, (caption, brackets(report))))


def network_facts(report: Report, notes: Footnotes) -> list[tuple[str, str]]:
    """What is known of the whole, by name."""
    entries = []
    for name, quantity, unit in facts(report):
        notes.add(quantity, name)
        if quantity.measured:
            entries.append((name, f"{estimate(quantity)} {unit}".rstrip()))
    return entries + remarks(report)


def topic_views(report: Report, notes: Footnotes) -> list[dict[str, Any]]:
    """The chapters that only some systems have."""
    return [
        {
            "title": topic.title,
            "anchor": topic.title.lower().replace(" ", "-"),
            "remark": topic.remark,
            "facts": entries(topic, notes),
            "charts": topic.charts,
            "tables": [
                {
                    "title": table.title,
                    "heads": table.heads,
                    "rows": [[cell(value) for value in row] for row in table.rows],
                }
                for table in topic.tables
            ],
        }
        for topic in topics(report)
    ]


def checks(report: Report) -> list[tuple[bool, str]]:
    """The verifications of the capture: passed or not, and what was found."""
    return [
        (
            check.passed,
            printable(check.check)
            + ("" if check.error is None else f", off by {brief(check.error)}")
            + (f" ({printable(check.detail)})" if check.detail else ""),
        )
        for check in report.verification
    ]


def title(report: Report) -> str:
    return f"{printable(report.model.class_name)}: {printable(report.verdict.kind)}"


def warning(report: Report) -> str:
    """What is missing where the analysis was interrupted."""
    return printable(incomplete(report))


def rule_pages(rules: Iterable[Any], found: Iterable[Flag]) -> list[dict[str, Any]]:
    """The documentation of rules: of those that found something first. `documentation` is Markdown by heading."""
    fired = {flag.code for flag in found}
    pages = [_rule_page(rule, rule.code in fired) for rule in rules]
    return sorted(pages, key=lambda page: (not page["fired"], page["code"]))


def _rule_page(rule: Any, fired: bool) -> dict[str, Any]:
    documentation: Mapping[str, str] = getattr(rule, "documentation", {})
    return {
        "code": rule.code,
        "name": rule.name,
        "severity": rule.severity.value,
        "summary": rule.summary,
        "fired": fired,
        "chapters": list(documentation.items()),
    }
