"""Depth profiles: the gradient at every state as columns, the other quantities as sparklines below it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from dynstab.core.estimate import Estimate
from dynstab.core.report import Report
from dynstab.render.bars import chart, finite, fit, spark
from dynstab.render.footnotes import Footnotes
from dynstab.render.ink import Ink
from dynstab.render.numbers import MARKS, natural_log, number, span
from dynstab.render.page import Page, heading, line
from dynstab.render.table import usual_label

LABEL = 24
RANGE = 18
WIDEST = 120
ROUNDING = 1e-6
"""Logarithms of ratios this near to 1 are rounding errors, and shown as 0."""
LEAST_SPAN = 3.0
"""Nat that a chart covers at least: a flat profile shall look flat."""

_NOTED = {
    "relative_gain": "relative gradient gain",
    "gain": "gradient gain",
    "upper": "largest gradient gain",
    "lower": "smallest gradient gain",
}


@dataclass(frozen=True, kw_only=True)
class Series:
    """A quantity along depth, as logarithms. Series of one `scale` share their axis."""

    label: str
    values: tuple[float | None, ...]
    scale: str
    mark: str = ""

    @classmethod
    def of(cls, label: str, estimates: Sequence[Estimate], scale: str = "") -> Series:
        usual = usual_label(estimates)
        values = tuple(natural_log(estimate.value) for estimate in estimates)
        return cls(label=label, values=values, scale=scale or label, mark=MARKS[usual] if usual else "")

    @property
    def measured(self) -> bool:
        return any(value is not None for value in self.values)


@dataclass(frozen=True)
class Spread:
    """How depth becomes columns, the same for every series."""

    points: int
    width: int

    @classmethod
    def of(cls, points: int, ink: Ink) -> Spread:
        return cls(points=max(1, points), width=max(8, min(WIDEST, ink.width - LABEL - RANGE - 3)))

    @property
    def repeat(self) -> int:
        return max(1, self.width // self.points)

    @property
    def columns(self) -> int:
        return min(self.width, self.points * self.repeat)

    def fit(self, values: Sequence[float | None]) -> list[float | None]:
        return fit(values, self.width, self.repeat)


def profile(report: Report, ink: Ink, notes: Footnotes) -> Page:
    """The profile's lines; none where nothing was measured along depth."""
    flow, steps, states = report.measurements.gradient_flow, report.measurements.steps, report.measurements.states
    relative = Series.of("relative gradient gain", [point.relative_gain for point in flow])
    raw = [
        Series.of("gradient gain", [point.gain for point in flow], "gradient"),
        Series.of("  largest, any loss", [point.upper for point in flow], "gradient"),
        Series.of("  smallest, any loss", [point.lower for point in flow], "gradient"),
    ]
    local = [
        Series.of("RMS of the state", [state.rms for state in states]),
        Series.of("RMS gain χ per step", [step.rms_gain for step in steps]),
        Series.of("norm growth per step", [step.norm_growth for step in steps]),
    ]
    longest = max(len(series.values) for series in (relative, *raw, *local))
    spread = Spread.of(longest, ink)
    main = relative if relative.measured else raw[0]
    shown = [series for series in (*raw, *local) if series.measured and series is not main]
    if not (main.measured or shown):
        return []
    for field, words in _NOTED.items():
        notes.add_series(words, [(point.state, getattr(point, field)) for point in flow], "state")
    ends = "the input, right the output" if report.system.axis == "depth" else "the earliest step, right the last"
    page = heading(ink, f"Along {report.system.axis}", f"natural logarithms; left is {ends}")
    end = "output" if report.system.axis == "depth" else "last"
    page += _columns(main, spread, ink, end) if main.measured else []
    scales = {series.scale: _axis([other for other in shown if other.scale == series.scale]) for series in shown}
    return page + [_sparkline(series, *scales[series.scale], spread, ink) for series in shown]


def _columns(series: Series, spread: Spread, ink: Ink, end: str) -> Page:
    """The chart of one series, with its axis: as many rows as the series spans nat, from three to six."""
    values = spread.fit(series.values)
    numbers = finite(values) or [0.0]
    rows = chart(values, rows=min(6, max(3, round(max(numbers) - min(numbers)))), least=LEAST_SPAN)
    above = [(edge, marks) for edge, marks in rows if edge > 0]
    below = [(edge, marks) for edge, marks in rows if edge < 0]
    page = [_title(series, ink, end)]
    page += [_chart_row(number(edge) if edge == rows[0][0] else "", marks, ink) for edge, marks in above]
    page.append(line(ink.cell("0", LABEL, right=True, style="dim"), ink.text("┼" + "─" * len(values), "dim")))
    page += [_chart_row(number(edge) if edge == rows[-1][0] else "", marks, ink) for edge, marks in below]
    first, last = "state 0", str(len(series.values) - 1)
    if len(values) > len(first + last):
        page.append(line(" " * (LABEL + 1), ink.text(first + last.rjust(len(values) - len(first)), "dim")))
    return page


def _title(series: Series, ink: Ink, end: str) -> Text:
    known = finite(series.values)
    extent = f", {span(known)}" if known else ""
    return line(
        ink.cell(f"{series.label} {series.mark}", LABEL), " ", ink.text(f"from each state to the {end}{extent}", "dim")
    )


def _chart_row(label: str, marks: str, ink: Ink) -> Text:
    return line(ink.cell(label, LABEL, right=True, style="dim"), ink.text("┤", "dim"), ink.text(marks, "cyan"))


def _sparkline(series: Series, low: float, high: float, spread: Spread, ink: Ink) -> Text:
    marks = spark(spread.fit(series.values), low, high)
    numbers = finite(series.values)
    extent = span([0.0 if abs(value) < ROUNDING else value for value in numbers]) if numbers else "not finite"
    return line(
        ink.cell(f"{series.label} {series.mark}", LABEL),
        " ",
        ink.cell(marks, spread.columns, style="cyan"),
        "  ",
        ink.text(extent, "dim"),
    )


def _axis(series: Sequence[Series]) -> tuple[float, float]:
    """The range that all of `series` share, at least `LEAST_SPAN` wide."""
    numbers = [value for each in series for value in finite(each.values)] or [0.0]
    low, high = min(numbers), max(numbers)
    slack = max(0.0, LEAST_SPAN - (high - low)) / 2
    return low - slack, high + slack
