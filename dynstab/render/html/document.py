"""Report -> the page's text."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from dynstab.core.errors import ConfigError
from dynstab.core.files import write_whole
from dynstab.core.report import Report
from dynstab.render.charts import chart, figures
from dynstab.render.footnotes import Footnotes
from dynstab.render.html import packing, view
from dynstab.render.html.strip import strip
from dynstab.render.ink import printable
from dynstab.render.methods import methods, references
from dynstab.render.numbers import MARKS, MEANINGS
from dynstab.render.sections.provenance import circumstances
from dynstab.render.sections.verdict import subject
from dynstab.render.table import QUANTITIES

ASSETS = ("inline", "shared")
"""Plotly's script inside each page, or once beside all pages of a folder."""

EXACT_EIGENVALUES = 4096
"""Beyond this many, a page holds six digits of each: the last ten cost a megabyte and are rounding anyway."""


def page(report: Report, *, rules: Iterable[Any] = (), assets: str = "inline") -> str:
    """The whole page.

    Args:
        rules: whose documentation the page holds. assets: one of `ASSETS`.

    Raises:
        ConfigError: no such way to ship assets.
    """
    notes = Footnotes()
    drawn = figures(report)
    charts = {
        name: {"title": chart(name).TITLE, "about": chart(name).ABOUT, "height": figure.layout.height}
        for name, figure in drawn.items()
    }
    data = {
        "report": _embedded(report).to_json(),
        "figures": [figure.to_json() for figure in drawn.values()],
        "names": list(drawn),
        "quantities": [[quantity.field, quantity.heading, quantity.words] for quantity in QUANTITIES],
    }
    return compose(
        "report.html",
        data=data,
        script="report.js",
        assets=assets,
        report=report,
        title=view.title(report),
        subject=printable(subject(report)),
        sign=view.SIGNS.get(report.verdict.kind, "?"),
        tiles=view.tiles(report),
        warning=view.warning(report),
        strip=strip(report),
        flags=view.flags(report),
        charts=charts,
        steps=view.step_table(report, notes),
        step_heads=view.step_heads(report),
        states=view.state_table(report, notes),
        exponents=view.exponent_table(report, notes),
        exponent_caption=view.exponent_caption(report),
        facts=view.network_facts(report, notes),
        topics=view.topic_views(report, notes),
        checks=view.checks(report),
        circumstances=[(name, printable(text)) for name, text in circumstances(report) if text and name != "methods"],
        methods=methods(report),
        references=references(report),
        rules=view.rule_pages(rules, report.flags),
        notes=[printable(line) for line in notes.lines()],
        rounded=rounded(report),
        legend=[(MARKS[label], meaning) for label, meaning in MEANINGS.items()],
    )


def _embedded(report: Report) -> Report:
    """The report as the page holds it: of very many eigenvalues, no more digits than anybody reads."""
    if not rounded(report):
        return report
    steps = tuple(
        step.model_copy(update={"eigenvalues": tuple((_short(a), _short(b)) for a, b in step.eigenvalues)})
        for step in report.measurements.steps
    )
    return report.model_copy(update={"measurements": report.measurements.model_copy(update={"steps": steps})})


def rounded(report: Report) -> bool:
    """Are there so many eigenvalues that the page rounds them?"""
    return sum(len(step.eigenvalues) for step in report.measurements.steps) > EXACT_EIGENVALUES


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def compose(template: str, *, data: dict[str, Any], script: str, assets: str, **facts: Any) -> str:
    """A page from its template, with its styles, script, data and charts, and a policy that lets only these run.

    Raises:
        ConfigError: `assets` is none of `ASSETS`.
    """
    if assets not in ASSETS:
        raise ConfigError(f"there are no assets {assets!r}", expected=" or ".join(ASSETS))
    code = packing.static("charts.js") + packing.static(script)
    shared = assets == "shared"
    allowed = [f"'{packing.digest(code)}'", "'self' file:" if shared else f"'{packing.plotly_digest()}'"]
    return (
        environment()
        .get_template(template)
        .render(
            **facts,
            data=packing.packed_json(data),
            policy=f"default-src 'none'; script-src {' '.join(allowed)}; style-src 'unsafe-inline'; "
            "img-src data: blob:; base-uri 'none'; form-action 'none'",
            style=Markup(packing.static("page.css")),
            code=Markup(code),
            plotly="" if shared else packing.packed_plotly(),
            plotly_file=packing.shared_name() if shared else "",
        )
        + "\n"
    )


def fragment(report: Report) -> str:
    """Verdict, answers and findings, styled in place: what a notebook shows under a cell."""
    return (
        environment()
        .get_template("fragment.html")
        .render(
            report=report,
            subject=printable(subject(report)),
            sign=view.SIGNS.get(report.verdict.kind, "?"),
            tiles=view.tiles(report),
            flags=view.flags(report),
        )
    )


def write(text: str, path: str | os.PathLike[str], *, assets: str = "inline") -> None:
    """Write a page and, where it shares them, its assets beside it.

    Raises:
        ReportError: a file cannot be written.
    """
    write_whole(path, text)
    beside = Path(path).parent / packing.shared_name()
    if assets == "shared" and not beside.is_file():
        write_whole(beside, packing.plotly_script())


@cache
def environment() -> Environment:
    """Templates in which every value is escaped unless it is marked as markup, and every name must exist."""
    templates = Environment(
        loader=PackageLoader("dynstab.render.html", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["markdown"] = markdown
    return templates


def markdown(text: str) -> Markup:
    """Markdown as HTML; HTML in it is shown as text."""
    return Markup(MarkdownIt("commonmark", {"html": False}).render(text))
