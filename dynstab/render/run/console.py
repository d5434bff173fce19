"""A run on the terminal: how it stands, where it began, its curves, its groups, what was found."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions
from rich.text import Text

from dynstab.core.run import Incident, Run
from dynstab.core.run_series import Curve, curves
from dynstab.render.bars import finite, spark
from dynstab.render.ink import Ink
from dynstab.render.numbers import MISSING, count, number, plural
from dynstab.render.page import SEVERITY_MARKS, SEVERITY_STYLES, Page, heading, line, pairs, wrapped
from dynstab.render.run.groups import GroupState, group_states
from dynstab.render.run.words import beginning, course, qualities, severity, state, subject

FEW_GROUPS = 5
FEW_FINDINGS = 4
NUMBER = 9
WORDS = 24
LONGEST_SPARK = 120
_HEADS = ("lowest", "highest", "last")
_STYLES = {None: "green", **SEVERITY_STYLES}


@dataclass(frozen=True)
class RunPage:
    """What rich prints of a run.

    Attributes:
        live: for a terminal that is painted over and over: the latest findings alone, each in one line.
        height: lines that the page may take, None for any number. note: what else is to be said of its state.
    """

    run: Run
    live: bool = False
    height: int | None = None
    note: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        ink = Ink(width=options.max_width, ascii=Ink.of(console).ascii)
        for each in page(self.run, ink, live=self.live, height=self.height, note=self.note):
            each.rstrip()
            each.end = "\n"
            yield each


def run_text(run: Run, *, width: int = 100) -> str:
    """The page as plain text, without colour."""
    ink = Ink.of(Console(file=io.StringIO(), width=width, _environ={}))
    return "".join(each.plain.rstrip() + "\n" for each in page(run, ink))


def page(run: Run, ink: Ink, *, live: bool = False, height: int | None = None, note: str = "") -> Page:
    """All lines, none wider than the page."""
    found = _latest(run, ink) if live else _findings(run, ink)
    parts = (_curves(run, ink), _groups(run, ink))
    head = _head(run, ink) + (wrapped(ink, note, indent=2, style="yellow") if note else [])
    lines = [*head, *(found if live else ()), *parts[0], *parts[1], *(() if live else [*found, *_footer(run, ink)])]
    for each in lines:
        each.truncate(ink.width)
    return lines[:height]


def _head(run: Run, ink: Ink) -> Page:
    worst = severity(run)
    mark = SEVERITY_MARKS[worst] if worst else "✓"
    return [
        *wrapped(ink, beginning(run), lead=f"{mark} ", style="bold", lead_style=_STYLES[worst]),
        *(wrapped(ink, course(run), indent=2) if course(run) else []),
        *wrapped(ink, subject(run), indent=2, style="dim"),
        *wrapped(ink, state(run), indent=2, style="dim"),
    ]


def _curves(run: Run, ink: Ink) -> Page:
    found = curves(run)
    if not found:
        return []
    words = min(WORDS, max(ink.length(curve.words) for curve in found))
    width = max(1, min(LONGEST_SPARK, ink.width - words - len(_HEADS) * NUMBER - 6))
    steps = [step for curve in found for step, _ in curve.points]
    heads = (ink.cell(text, NUMBER, right=True, style="dim") for text in _HEADS)
    head = line(" " * (2 + words), *heads, ink.text(f"  step {min(steps)} to {max(steps)}", "dim"))
    rows = [_curve(curve, words, columns(curve, min(steps), max(steps), width), max(steps), ink) for curve in found]
    return [*heading(ink, "Over training", _span(run)), head, *rows, *_remarks(found, max(steps), ink)]


def _remarks(found: tuple[Curve, ...], last: int, ink: Ink) -> Page:
    """What has no number now, and since when."""
    lines: Page = []
    for words, steps in (
        ("Not finite since step", {curve.words: curve.lost for curve in found}),
        ("Not taken since step", {curve.words: curve.silent(last) for curve in found}),
    ):
        since = {step: [name for name in steps if steps[name] == step] for step in steps.values() if step is not None}
        said = "; ".join(f"{step}: {', '.join(since[step])}" for step in sorted(since))
        lines += wrapped(ink, f"{words} {said}.", indent=2, style="yellow") if said else []
    return lines


def _span(run: Run) -> str:
    of = "" if run.thinned_from is None else f"{count(len(run.signals))} of "
    taken = of + plural(run.thinned_from or len(run.signals), "signal"), plural(len(run.probes), "probe")
    values = [value for curve in curves(run) for _, value in curve.points]
    lost = ("× stands for NaN", any(map(math.isnan, values))), ("↑ for infinity", math.inf in values)
    return "; ".join([" and ".join(taken), *(words for words, there in lost if there)])


def _curve(curve: Curve, words: int, drawn: list[float | None], last: int, ink: Ink) -> Text:
    numbers = finite([value for _, value in curve.points])
    extremes = (min(numbers), max(numbers)) if numbers else (math.nan, math.nan)
    heights = finite(drawn)
    return line(
        "  ",
        ink.cell(curve.words, words),
        *(ink.cell(number(value), NUMBER, right=True) for value in (*extremes, curve.now(last))),
        "  ",
        ink.text(spark(drawn, min(heights, default=0.0), max(heights, default=1.0)), "cyan"),
    )


def columns(curve: Curve, first: int, last: int, width: int) -> list[float | None]:
    """The curve on `width` columns from the training step `first` to `last`, so that all curves share one axis.

    A column with many points shows the greatest, NaN before all, and a column without any holds the one before; what
    was not taken any more ends.
    """
    positive = [value for _, value in curve.points if value > 0]
    # A loss that once was 0 is still read in ratios.
    floor = min(positive) if curve.logarithmic and positive else None
    drawn: list[float | None] = [None] * width
    for step, value in curve.points:
        column = (step - first) * width // (last - first + 1)
        drawn[column] = _greater(drawn[column], value if floor is None else _log(value, floor))
    end = (min(curve.holds, last) - first) * width // (last - first + 1)
    for column in range(1, end + 1):
        drawn[column] = drawn[column - 1] if drawn[column] is None else drawn[column]
    return drawn


def _greater(a: float | None, b: float) -> float:
    return b if a is None or math.isnan(b) or b > a else a


def _log(value: float, floor: float) -> float:
    return math.log(max(value, floor)) if value < math.inf else value


def _groups(run: Run, ink: Ink) -> Page:
    states = group_states(run)
    shown = [each for each in states if each.gradient is not None or each.update is not None][:FEW_GROUPS]
    if not shown:
        return []
    widths = (10, 14, 14, 14)
    name = max(10, min(40, max(ink.length(each.name) for each in shown), ink.width - sum(widths) - 2))
    heads = ("gradient", "/ usual", "update/weight", "/ usual")
    rows = [[each.name, *_cells(each)] for each in shown]
    lines = [
        line(
            "  ",
            ink.cell("", name),
            *(ink.cell(h, w, right=True, style="dim") for h, w in zip(heads, widths, strict=True)),
        )
    ]
    for row in rows:
        cells = (ink.cell(cell, width, right=True) for cell, width in zip(row[1:], widths, strict=True))
        lines.append(line("  ", ink.cell(ink.name(row[0], name), name), *cells))
    remark = f"{len(shown)} of {plural(len(states), 'group')}, the furthest from their medians first"
    return [*heading(ink, "Groups of parameters now", remark), *lines]


def _cells(each: GroupState) -> list[str]:
    return [
        number(each.gradient), _times(each.gradient_ratio, each.gradient_lost),
        number(each.update), _times(each.update_ratio, each.update_lost),
    ]  # fmt: skip


def _times(ratio: float | None, lost: int | None) -> str:
    if lost is not None:
        return f"since {lost}"
    return MISSING if ratio is None else f"× {number(ratio)}"


def _findings(run: Run, ink: Ink) -> Page:
    lines = heading(ink, "Findings")
    for incident in run.incidents:
        lines += _finding(incident, ink)
    lines += [] if run.incidents else wrapped(ink, "None.", indent=2)
    if run.post_mortems:
        lines += heading(ink, "Post-mortems")
        lines += pairs(
            ink,
            [
                (f"step {each.step}", each.reason + (f" → {each.report}" if each.report else ""))
                for each in run.post_mortems
            ],
        )
    return lines


def _footer(run: Run, ink: Ink) -> Page:
    """What the numbers of the probes are."""
    entries = qualities(run)
    return [*heading(ink, "How the probes measure"), *pairs(ink, entries)] if entries else []


def _finding(incident: Incident, ink: Ink) -> Page:
    flag = incident.flag
    lines = [_title(incident, ink), *wrapped(ink, flag.message, indent=2)]
    for advice in flag.advice:
        lines += wrapped(ink, advice, indent=2, lead="→ ", lead_style="green")
    return lines


def _title(incident: Incident, ink: Ink) -> Text:
    flag = incident.flag
    title = f"{SEVERITY_MARKS[flag.severity]} step {incident.step} · {flag.code} {flag.name}"
    place = ink.name(flag.where, max(8, ink.width - ink.length(title) - 3))
    return line(ink.text(title, SEVERITY_STYLES[flag.severity]), ink.text(f" · {place}" if place else "", "bold"))


def _latest(run: Run, ink: Ink) -> Page:
    """The newest findings first, one line each."""
    if not run.incidents:
        return []
    lines = heading(ink, "Findings", f"the newest of {len(run.incidents)} first")
    for incident in tuple(reversed(run.incidents))[:FEW_FINDINGS]:
        title = _title(incident, ink)
        title.append(ink.text(f" · {incident.flag.message}", "dim"))
        lines.append(title)
    return lines
