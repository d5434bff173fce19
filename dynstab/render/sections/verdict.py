"""The answer, in one word and one sentence, and what it is about."""

from __future__ import annotations

from math import isfinite

from dynstab.core.report import ModelInfo, Report, SystemInfo
from dynstab.render.ink import Ink, printable
from dynstab.render.numbers import number, plural
from dynstab.render.page import Page, wrapped

NOTHING = "None: nothing lies between input and output."
"""What stands in the place of steps where there are none."""

_LOOKS = {
    "stable": ("✓", "reverse green"),
    "exploding": ("↑", "reverse red"),
    "vanishing": ("↓", "reverse magenta"),
    "mixed": ("↕", "reverse yellow"),
    "inconclusive": ("?", "reverse cyan"),
}


def verdict(report: Report, ink: Ink) -> Page:
    """The verdict's lines and one on the model."""
    found = report.verdict
    mark, style = _LOOKS.get(found.kind, ("?", "reverse"))
    badge = ink.plain(f" {mark} {printable(found.kind).upper()} ")
    page = wrapped(ink, found.summary, lead=f"{badge}  ", style="bold")
    page[0].stylize(style, 0, len(badge))
    if sure := confidence(report):
        page += wrapped(ink, sure, indent=2)
    page += wrapped(ink, subject(report), indent=2, style="dim")
    if incomplete(report):
        page += wrapped(ink, incomplete(report), lead="▲ ", style="yellow")
    return page


def confidence(report: Report) -> str:
    """How sure the verdict is, and how far from the next one."""
    margin, word = report.verdict.margin, f"Confidence {report.verdict.confidence}"
    away = "" if margin is None or not isfinite(margin) else f"{number(margin)} nat from the nearest cut"
    # With reasons, the summary has told it.
    told = f"Confidence is {report.verdict.confidence}:" in report.verdict.summary
    return " · ".join(part for part in ("" if told else word, away) if part)


def subject(report: Report) -> str:
    """What was analysed: "GPT2Model from model.pt · 124 M parameters · 24 steps in depth · 8 inputs, float32"."""
    run = report.provenance
    inputs = f"{plural(run.samples, 'input')}, " if report.system.axis != "training" else ""
    return f"{described(report.model, report.system)} · {inputs}{run.dtype} on {run.device}"


def described(model: ModelInfo, system: SystemInfo) -> str:
    """A model and its system in one line."""
    source = f" from {model.source}" if model.source not in ("", model.class_name) else ""
    kinds = [step.kind for step in system.steps]
    detail = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    if system.axis != "depth" and len(set(kinds)) == 1:
        detail = ""  # every step of a recurrence or of a solver is of one kind
    way = "of the solver" if system.kind == "flow" else f"in {system.kind}"
    return (
        f"{model.class_name}{source} · {plural(model.parameters, 'parameter')} · "
        f"{plural(len(kinds), 'step')} {way}{f' ({detail})' if detail else ''}"
    )


def incomplete(report: Report) -> str:
    """What is missing where the analysis was interrupted, or nothing."""
    partial = report.measurements.partial
    if not partial and not report.provenance.interrupted:
        return ""
    cause = "Interrupted: the report is partial" if report.provenance.interrupted else "The report is partial"
    return f"{cause}{'; did not finish: ' + ', '.join(partial) if partial else ''}."
