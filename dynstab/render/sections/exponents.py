"""The exponents of the whole trajectory, each by its own name, beside the leading singular values."""

from __future__ import annotations

from rich.text import Text

from dynstab.core.estimate import Estimate
from dynstab.core.report import Report
from dynstab.render.footnotes import Footnotes
from dynstab.render.ink import Ink
from dynstab.render.numbers import estimate, plural
from dynstab.render.page import Page, heading, line, wrapped

MOST = 12
"""Indices that are listed; report.json holds all."""


def spectra(report: Report) -> list[tuple[str, tuple[Estimate, ...]]]:
    """The spectra that were measured, by name, each descending."""
    lyapunov, network = report.measurements.lyapunov, report.measurements.network
    named = [
        ("QR exponent", lyapunov.qr),
        ("finite-time exponent", lyapunov.finite_time),
        ("σ of the network", network.largest_singular_values),
    ]
    return [(name, values) for name, values in named if values]


def further(report: Report) -> str:
    """What a list of the first `MOST` leaves out."""
    left_out = [
        f"{len(values) - MOST} more of the {name}s, down to {estimate(values[-1])}"
        for name, values in spectra(report)
        if len(values) > MOST
    ]
    return "; ".join(left_out)


def exponents(report: Report, ink: Ink, notes: Footnotes) -> Page:
    """One line an index, largest first; a line that says so where there are none."""
    named = spectra(report)
    page = heading(ink, "Exponents", f"{report.measurements.lyapunov.unit}, {_extent(report)}")
    if not named:
        return page + wrapped(ink, "Not measured.", indent=2)
    columns = [[name, *(estimate(value, always=True) for value in values[:MOST])] for name, values in named]
    page += [_line(index, columns, ink) for index in range(max(map(len, columns)))]
    for name, values in named:
        notes.add_series(name, enumerate(values, 1))
    return page + (wrapped(ink, further(report), indent=2, style="dim") if further(report) else [])


def _extent(report: Report) -> str:
    """Over which steps: those of a long sequence are not all looked at one by one."""
    steps, time = len(report.system.steps), report.measurements.time
    if time is None or time.steps + time.discarded == steps:
        return f"over {plural(steps, 'step')}"
    return f"QR over {plural(time.steps, 'step')}, the others over the {steps} looked at one by one"


def _line(index: int, columns: list[list[str]], ink: Ink) -> Text:
    """Row `index` of the table; row 0 holds the names."""
    cells = [
        ink.cell(
            column[index] if index < len(column) else "",
            3 + max(map(ink.length, column)),
            right=True,
            style="" if index else "bold",
        )
        for column in columns
    ]
    return line(ink.cell(str(index) if index else "", 4, right=True, style="dim"), *cells)
