"""How it was measured: what was checked, on what, by which methods, and what the marks mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.text import Text

from dynstab.core.estimate import Estimate
from dynstab.core.report import Check, Report, SystemInfo
from dynstab.render.footnotes import Footnotes
from dynstab.render.ink import Ink
from dynstab.render.numbers import MARKS, MEANINGS, brief, count, duration
from dynstab.render.page import Page, heading, pairs, wrapped
from dynstab.render.table import QUANTITIES


def provenance(report: Report, ink: Ink) -> Page:
    """Checks, inputs, capture, methods and cost."""
    page = heading(ink, "How it was measured")
    page += checks(report.verification, ink)
    return page + pairs(ink, circumstances(report))


def checks(verification: Sequence[Check], ink: Ink) -> Page:
    """Each verification of the capture with its deviation, ✓ or ✗."""
    return [each for check in verification for each in _check(check, ink)]


def circumstances(report: Report) -> list[tuple[str, str]]:
    """Labels and texts on the run."""
    system, run = report.system, report.provenance
    return [
        ("inputs", "; ".join(system.inputs)),
        ("capture", capture(system, run.routes)),
        ("notes", "; ".join(system.notes)),
        ("methods", "; ".join(methods(report))),
        ("cost", f"{duration(run.seconds)}, {count(run.products)} products, effort {run.config.effort}"),
        ("by", f"dynstab {run.dynstab}, torch {run.torch}, seed {run.seed}, {run.created}"),
    ]


def capture(system: SystemInfo, routes: Mapping[str, int]) -> str:
    """How the graph was got and how its ops were linearised."""
    ops = ", ".join(f"{name} {uses}" for name, uses in routes.items())
    return " · ".join(filter(None, (system.rung, f"ops: {ops}" if ops else "")))


def methods(report: Report) -> list[str]:
    """Each method with what it measured: "block Golub-Kahan (σ max)"."""
    used: dict[str, list[str]] = {}
    measurements = report.measurements
    series: list[tuple[str, tuple[Estimate, ...]]] = [
        (quantity.heading, tuple(quantity.of(step) for step in measurements.steps)) for quantity in QUANTITIES
    ]
    series.append(("QR exponents", measurements.lyapunov.qr))
    series.append(("finite-time exponents", measurements.lyapunov.finite_time))
    series.append(("gradient gain", tuple(point.gain for point in measurements.gradient_flow)))
    for name, estimates in series:
        for method in dict.fromkeys(estimate.method for estimate in estimates if estimate.measured):
            if method:
                used.setdefault(method, []).append(name)
    return [f"{method} ({', '.join(names)})" for method, names in used.items()]


def footnotes(notes: Footnotes, ink: Ink) -> Page:
    """What the marks mean and why numbers are missing."""
    legend = " · ".join(f"{MARKS[label]} {meaning}" for label, meaning in MEANINGS.items())
    page: Page = [Text(), *wrapped(ink, f"{legend} · – not measured · † see below", style="dim")]
    for note in notes.lines():
        page += wrapped(ink, note[1:].lstrip(), lead=f"{note[0]} ", style="dim")
    return page


def _check(check: Check, ink: Ink) -> Page:
    mark, style = ("✓", "green") if check.passed else ("✗", "bold red")
    deviation = "" if check.error is None else f", off by {brief(check.error)}"
    detail = f" ({check.detail})" if check.detail else ""
    text, weight = f"{check.check}{deviation}{detail}", "" if check.passed else style
    return wrapped(ink, text, indent=2, lead=f"{mark} ", lead_style=style, style=weight)
