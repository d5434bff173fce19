"""Run -> the HTML page's text."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dynstab.core.estimate import Label
from dynstab.core.flag import Severity
from dynstab.core.run import Incident, Run
from dynstab.core.run_series import Curve, curves
from dynstab.render.html.document import compose, write
from dynstab.render.html.view import SEVERITY_SIGNS, Tile, rule_pages
from dynstab.render.ink import printable
from dynstab.render.numbers import MARKS, MEANINGS, MISSING, count, duration, estimate, evidence, number, plural
from dynstab.render.run.charts import figures
from dynstab.render.run.words import (
    beginning,
    begun,
    course,
    finding,
    kind,
    last_step,
    probing,
    qualities,
    rate,
    seconds,
    severity,
    subject,
)

TONES = {None: "stable", Severity.INFO: "stable", Severity.WARNING: "mixed", Severity.ERROR: "exploding"}
"""In the colours of a report's verdicts."""

MOST_PROBES = 400
"""Rows of the table; the store holds all."""


def write_run_html(
    run: Run,
    path: str | os.PathLike[str],
    *,
    store: str | os.PathLike[str] = "",
    rules: Iterable[Any] = (),
    assets: str = "inline",
) -> None:
    """Write the page of a run.

    Args:
        store: the run's file, beside which post-mortems lie; the page links to them.
        rules: those whose documentation the page holds where they found something. assets: "inline" or "shared".

    Raises:
        ConfigError: no such way to ship assets.
        ReportError: a file cannot be written.
    """
    write(page(run, rules=rules, assets=assets, folder=_from(path, store)), path, assets=assets)


def page(run: Run, *, rules: Iterable[Any] = (), assets: str = "inline", folder: str = "") -> str:
    """The whole page; `folder` is where post-mortems lie, seen from the page."""
    drawn = figures(run)
    data = {"figures": [figure.to_json() for _, figure in drawn.values()], "names": list(drawn)}
    found = {incident.flag.code for incident in run.incidents}
    return compose(
        "run.html",
        data=data,
        script="run.js",
        assets=assets,
        title=f"{printable(run.info.model)}: a training run, {kind(run)}",
        kind=kind(run),
        tone=TONES[severity(run)],
        sign=SEVERITY_SIGNS.get(severity(run) or Severity.INFO, "●") if severity(run) else "✓",
        beginning=beginning(run),
        course=course(run),
        subject=subject(run),
        tiles=_tiles(run),
        flags=[_flag(incident) for incident in run.incidents],
        post_mortems=[_post_mortem(each.step, each.reason, each.report, folder) for each in run.post_mortems],
        charts={
            name: {"title": chart.title, "about": chart.about, "height": figure.layout.height}
            for name, (chart, figure) in drawn.items()
        },
        probes=_probes(run),
        circumstances=_circumstances(run),
        rules=rule_pages((rule for rule in rules if rule.code in found), [each.flag for each in run.incidents]),
    )


def _tiles(run: Run) -> list[Tile]:
    tiles = [_first_trouble(run)]
    wanted = (
        ("loss", "Loss"),
        ("leading_exponent", "Leading exponent at least, nat per step"),
        ("sharpness_over_threshold", "Sharpness over threshold"),
        ("largest_relative_update", "Largest update over weight"),
        ("gradient_norm", "Gradient norm"),
    )
    found, last = {curve.name: curve for curve in curves(run)}, last_step(run) or 0
    for name, question in wanted:
        if name in found and len(tiles) < 4:
            curve = found[name]
            tiles.append(Tile(question=question, answer=number(curve.now(last)), detail=_beside(curve, last)))
    return tiles


def _beside(curve: Curve, last: int) -> str:
    """Since when there is no number, or what it is to be held against: of a loss the first one, else the highest."""
    if curve.lost is not None:
        return f"not finite since step {curve.lost}"
    if curve.silent(last) is not None:
        return f"not taken since step {curve.silent(last)}, when it was {number(curve.last)}"
    known = [point for point in curve.points if math.isfinite(point[1])]
    if curve.name == "loss" or not known:
        step, value = curve.points[0]
        return f"{number(value)} at step {step}"
    step, value = max(known, key=lambda point: point[1])
    return f"highest {number(value)} at step {step}"


def _first_trouble(run: Run) -> Tile:
    first = next((each for each in run.incidents if each.flag.severity is not Severity.INFO), None)
    if first is None:
        return Tile(question="Where it began", answer="nowhere", detail="no error, no warning")
    detail = printable(finding(first))
    return Tile(question="Where it began", answer=f"step {first.step}", detail=detail)


def _flag(incident: Incident) -> dict[str, Any]:
    flag = incident.flag
    return {
        "step": incident.step,
        "code": printable(flag.code),
        "name": printable(flag.name),
        "severity": flag.severity.value,
        "sign": SEVERITY_SIGNS[flag.severity],
        "where": "the whole network" if flag.where == "network" else printable(flag.where),
        "message": printable(flag.message),
        "advice": [printable(advice) for advice in flag.advice],
        "evidence": [(name.replace("_", " "), printable(evidence(value))) for name, value in flag.evidence.items()],
    }


def _post_mortem(step: int, reason: str, report: str | None, folder: str) -> dict[str, Any]:
    name = "" if report is None else printable(Path(report).name)
    address = "" if report is None else quote(Path(folder, Path(report).name).as_posix())
    return {"step": step, "reason": printable(reason).rstrip("."), "name": name, "address": address}


def _probes(run: Run) -> dict[str, Any]:
    """The probes as a table; of very many, evenly chosen ones."""
    pace = -(-len(run.probes) // MOST_PROBES) or 1
    rows = [
        (
            f"{probe.step}",
            _first(probe.exponents, Label.LOWER),
            _first(probe.gradient_flow, Label.ESTIMATE),
            estimate(probe.sharpness, always=True) if probe.sharpness is not None else MISSING,
            number(probe.threshold),
            duration(probe.cost),
            printable(probe.outcome),
        )
        for probe in run.probes[::pace]
    ]
    heads = (
        "training step",
        "leading exponent",
        "ln gradient gain",
        "sharpness",
        "threshold",
        "cost",
        "first direction",
    )
    title = plural(len(run.probes), "probe") + (f", one in {pace} shown" if pace > 1 else "")
    labels = {Label.LOWER: MEANINGS[Label.LOWER], Label.ESTIMATE: "estimate without an error of its own"}
    labels |= {probe.sharpness.label: MEANINGS[probe.sharpness.label] for probe in run.probes if probe.sharpness}
    title += "".join(f" · {MARKS[label]} {meaning}" for label, meaning in labels.items())
    return {"title": title, "heads": heads, "rows": rows}


def _first(values: Sequence[float], label: Label) -> str:
    """The first number with the mark of its label."""
    return MARKS[label] * math.isfinite(values[0]) + number(values[0]) if values else MISSING


def _circumstances(run: Run) -> list[tuple[str, str]]:
    info, step = run.info, last_step(run)
    entries = [
        ("model", f"{info.model}, {count(info.parameters)} parameters"),
        ("optimiser", info.optimizer or ""),
        ("device", f"{info.device}, {info.dtype}"),
        ("begun", begun(run)),
        ("state", "finished" if run.finished else "not finished: running, or ended early"),
        ("length", "" if step is None else f"up to step {step}, {duration(seconds(run))}"),
        ("rate at the end", rate(run)),
        ("probes", probing(run)),
        *qualities(run),
        ("watched", f"{plural(len(info.places), 'place')}, {plural(len(info.groups), 'group')} of parameters"),
        ("written by", f"dynstab {info.dynstab}, torch {info.torch}"),
    ]
    return [(name, printable(text)) for name, text in entries if text]


def _from(page_path: str | os.PathLike[str], store: str | os.PathLike[str]) -> str:
    """The store's folder as a link on the page would name it."""
    if not os.fspath(store):
        return ""
    return os.path.relpath(Path(store).resolve().parent, Path(page_path).resolve().parent)
