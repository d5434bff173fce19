"""Comparison -> the page's text."""

from __future__ import annotations

from typing import Any

from dynstab.core.comparison import Comparison, Difference
from dynstab.render.charts import comparison as charts
from dynstab.render.comparison import LEGEND, MARKS, change, letters, state, tally, words
from dynstab.render.html import view
from dynstab.render.html.document import compose
from dynstab.render.ink import printable
from dynstab.render.numbers import MISSING, estimate
from dynstab.render.sections.verdict import subject


def page(comparison: Comparison, *, assets: str = "inline") -> str:
    """The whole page of a comparison.

    Raises:
        ConfigError: no such way to ship assets.
    """
    drawn = charts.figures(comparison)
    data = {"figures": [figure.to_json() for figure in drawn.values()], "names": list(drawn)}
    titles = {"depth": charts.DEPTH, "exponents": charts.EXPONENTS}
    return compose(
        "compare.html",
        data=data,
        script="compare.js",
        assets=assets,
        title="Comparison: " + ", ".join(map(printable, comparison.names)),
        letters=letters(comparison),
        reports=[_report(name, report) for name, report in zip(comparison.names, comparison.reports, strict=True)],
        flags=[
            (flag, state(flag), [MISSING if level is None else level.value for level in flag.severities])
            for flag in comparison.flags
        ],
        charts={
            name: {"title": titles[name][0], "about": titles[name][1], "height": figure.layout.height}
            for name, figure in drawn.items()
        },
        network=[_row("", each) for each in comparison.network],
        tally=tally(comparison),
        steps=[_row(printable(comparison.steps[each.step or 0].name), each) for each in comparison.differences],
        alone=[_alone(comparison, step.name, step.indices) for step in comparison.steps if None in step.indices],
        legend=LEGEND,
    )


def _report(name: str, report: Any) -> dict[str, Any]:
    return {
        "name": printable(name),
        "kind": report.verdict.kind,
        "sign": view.SIGNS.get(report.verdict.kind, "?"),
        "summary": printable(report.verdict.summary),
        "subject": printable(subject(report)),
    }


def _row(step: str, difference: Difference) -> dict[str, Any]:
    return {
        "step": step,
        "quantity": words(difference),
        "values": [estimate(value) for value in difference.values],
        "change": change(difference),
        "moved": difference.moved,
        "mark": MARKS[difference.moved],
    }


def _alone(comparison: Comparison, name: str, indices: tuple[int | None, ...]) -> tuple[str, str]:
    own = [letter for letter, index in zip(letters(comparison), indices, strict=True) if index is not None]
    return printable(name), ", ".join(own)
