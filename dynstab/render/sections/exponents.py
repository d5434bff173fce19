"""The exponents of the whole trajectory, each by its own name, beside the leading singular values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from rich.text import Text

from dynstab.core.estimate import Estimate
from dynstab.core.report import Report
from dynstab.render.footnotes import Footnotes
from dynstab.render.ink import Ink
from dynstab.render.numbers import estimate, number, plural
from dynstab.render.page import Page, heading, line, wrapped

_INDEX = 4
MOST = 12
"""Indices that are listed; report.json holds all."""


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """Exponents or singular values, descending; `over` says of how many inputs, and by which mean."""

    name: str
    values: tuple[Estimate, ...]
    over: str

    def cells(self, most: int | None = None, *, spreads: bool = True) -> list[str]:
        """The first `most` as text; with `spreads`, each with that over the inputs in brackets, where there is one."""
        return [_cell(value) if spreads else estimate(value, always=True) for value in self.values[:most]]

    @property
    def title(self) -> str:
        return f"{self.name} ({self.over})" if self.over else self.name


def spectra(report: Report) -> list[Spectrum]:
    """The spectra that were measured, by name."""
    lyapunov, network = report.measurements.lyapunov, report.measurements.network
    named = [
        ("QR exponent", lyapunov.qr, "mean"),
        ("finite-time exponent", lyapunov.finite_time, "mean"),
        ("σ of the network", network.largest_singular_values, "geometric mean"),
    ]
    inputs = report.system.axis != "training"
    return [
        Spectrum(name=name, values=values, over=_over(values, mean) if inputs else "")
        for name, values, mean in named
        if values
    ]


def _over(values: tuple[Estimate, ...], mean: str) -> str:
    count = max(value.samples for value in values)
    return f"{mean} of {count}" if count > 1 else "1 input"


def _cell(value: Estimate) -> str:
    text, spread = estimate(value, always=True), value.spread
    return f"{text} ({number(spread, spread / 10)})" if spread and value.measured else text


def brackets(report: Report) -> str:
    """What brackets behind the numbers mean, where there are any."""
    scattered = any(value.spread for spectrum in spectra(report) for value in spectrum.values)
    return "in brackets the standard deviation over inputs" if scattered else ""


def further(report: Report) -> str:
    """What a list of the first `MOST` leaves out."""
    left_out = [
        f"{len(each.values) - MOST} more of the {each.name}s, down to {estimate(each.values[-1])}"
        for each in spectra(report)
        if len(each.values) > MOST
    ]
    return "; ".join(left_out)


def exponents(report: Report, ink: Ink, notes: Footnotes) -> Page:
    """One line an index, largest first; a line that says so where there are none."""
    named = spectra(report)
    table, spreads = _table(named, ink)
    remark = [report.measurements.lyapunov.unit, _extent(report), brackets(report) if spreads else ""]
    page = heading(ink, "Exponents", ", ".join(filter(None, remark)))
    if not named:
        return page + wrapped(ink, "Not measured.", indent=2)
    page += table
    for each in named:
        notes.add_series(each.name, enumerate(each.values, 1))
    return page + (wrapped(ink, further(report), indent=2, style="dim") if further(report) else [])


def _extent(report: Report) -> str:
    """Over which steps: those of a long sequence are not all looked at one by one."""
    steps, time = len(report.system.steps), report.measurements.time
    if time is None or time.steps == steps:
        return f"over {plural(steps, 'step')}"
    return f"QR over {plural(time.steps, 'step')}, the others over the {steps} looked at one by one"


def _table(named: Sequence[Spectrum], ink: Ink) -> tuple[Page, bool]:
    """The lines of the table, and whether it holds the spreads: they go where the page is too narrow."""
    columns: list[list[str]] = []
    widths: list[int] = []
    spreads = True
    for spreads, gap in ((True, 3), (True, 2), (False, 3)):
        columns = [[each.name, each.over, *each.cells(MOST, spreads=spreads)] for each in named]
        widths = [gap + max(map(ink.length, column)) for column in columns]
        if _INDEX + sum(widths) <= ink.width:
            break
    rows = list(zip_longest(*columns, fillvalue=""))
    leads = [("", "bold"), ("", "dim"), *((str(index), "") for index in range(1, len(rows) - 1))]
    page = [_line(label, row, widths, style, ink) for (label, style), row in zip(leads, rows, strict=False) if any(row)]
    return page, spreads


def _line(label: str, row: Sequence[str], widths: Sequence[int], style: str, ink: Ink) -> Text:
    cells = (ink.cell(cell, width, right=True, style=style) for cell, width in zip(row, widths, strict=True))
    return line(ink.cell(label, _INDEX, right=True, style="dim"), *cells)
