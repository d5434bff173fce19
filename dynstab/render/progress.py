"""Progress on a terminal: what is under way, how much of it is done, and the time left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from dynstab.core.progress import NullProgress, Progress, Stage
from dynstab.render.ink import Ink


@contextmanager
def progress_on(console: Console) -> Iterator[Progress]:
    """Bars that vanish when the block ends; off a terminal nothing."""
    if not console.is_terminal or console.is_dumb_terminal:
        yield NullProgress()
        return
    columns = (
        SpinnerColumn("line" if Ink.of(console).ascii else "dots"),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        _TimeLeft(compact=True),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        yield BarProgress(bars, Ink.of(console))


class _TimeLeft(TimeRemainingColumn):
    """ "00:12 left", and nothing while that is not known."""

    def render(self, task: Task) -> Text:
        return Text("") if task.time_remaining is None else super().render(task).append(" left")


class BarProgress:
    """One bar a stage, nested stages indented below their parent; a bar goes when its stage ends."""

    def __init__(self, bars: Bars, ink: Ink) -> None:
        self._bars, self._ink, self._depth = bars, ink, 0

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Stage]:
        task = self._bars.add_task("  " * self._depth + self._ink.plain(name), total=total)
        self._depth += 1
        try:
            yield _Bar(self._bars, task)
        finally:
            self._depth -= 1
            self._bars.remove_task(task)


class _Bar:
    def __init__(self, bars: Bars, task: TaskID) -> None:
        self._bars, self._task = bars, task

    def advance(self, count: int = 1) -> None:
        self._bars.advance(self._task, count)
