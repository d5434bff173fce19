"""A comparison of runs -> the HTML page's text."""

from __future__ import annotations

import os
from typing import Any

from dynstab.core.comparison import Difference
from dynstab.core.run_comparison import RunComparison, RunFlag
from dynstab.render.comparison import MARKS, change, state
from dynstab.render.html.document import compose, write
from dynstab.render.html.view import SEVERITY_SIGNS
from dynstab.render.ink import printable
from dynstab.render.numbers import MISSING, estimate
from dynstab.render.run import overlay
from dynstab.render.run.comparison import LEGEND, WORDS, letters, remarks, tail
from dynstab.render.run.page import TONES
from dynstab.render.run.words import beginning, course, kind, severity, subject


def write_run_comparison(comparison: RunComparison, path: str | os.PathLike[str], *, assets: str = "inline") -> None:
    """Write the page of a comparison of runs.

    Raises:
        ConfigError: no such way to ship assets.
        ReportError: a file cannot be written.
    """
    write(page(comparison, assets=assets), path, assets=assets)


def page(comparison: RunComparison, *, assets: str = "inline") -> str:
    """The whole page."""
    drawn: Any = overlay.figure(comparison)
    facts = {} if drawn is None else {"title": overlay.TITLE, "about": overlay.ABOUT, "height": drawn.layout.height}
    return compose(
        "compare_runs.html",
        data={"figures": [] if drawn is None else [drawn.to_json()], "names": [] if drawn is None else ["runs"]},
        script="run.js",
        assets=assets,
        title="Training runs compared: " + ", ".join(map(printable, comparison.names)),
        letters=letters(comparison),
        runs=[_card(name, run) for name, run in zip(comparison.names, comparison.runs, strict=True)],
        parted=comparison.parted,
        flags=[(flag, state(flag), _levels(flag)) for flag in comparison.flags],
        chart_facts=facts,
        tail=tail(comparison),
        curves=[_row(each, WORDS.get(each.quantity, each.quantity)) for each in comparison.curves],
        groups=[_row(each, printable(each.quantity)) for each in comparison.groups],
        curve_remarks=remarks(comparison.curves, comparison),
        group_remarks=[printable(remark) for remark in remarks(comparison.groups, comparison)],
        legend=LEGEND,
    )


def _card(name: str, run: Any) -> dict[str, str]:
    worst = severity(run)
    return {
        "name": printable(name),
        "kind": kind(run),
        "tone": TONES[worst],
        "sign": SEVERITY_SIGNS[worst] if worst else "✓",
        "summary": " ".join(part for part in (beginning(run), course(run)) if part),
        "subject": subject(run),
    }


def _levels(flag: RunFlag) -> list[tuple[str, str]]:
    """For every run the severity and the words of its cell."""
    return [
        ("", MISSING) if level is None else (level.value, flag.told(index))
        for index, level in enumerate(flag.severities)
    ]


def _row(difference: Difference, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "values": [estimate(value, usual=value.label) for value in difference.values],
        "change": change(difference),
        "state": {True: "moved", False: "same", None: "unknown"}[difference.moved],
        "mark": MARKS[difference.moved],
    }
