"""Progress reporters."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from dynstab.core.progress import NullProgress, Progress
from dynstab.render.progress import progress_on


def _work(progress: Progress) -> None:
    with progress.stage("steps", total=2) as outer:
        for _ in range(2):
            with progress.stage("sweeps [bold]x") as inner:
                inner.advance(3)
            outer.advance()


def _console(*, terminal: bool, encoding: str = "utf-8") -> tuple[Console, io.BytesIO]:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    return Console(file=stream, force_terminal=terminal, width=80, _environ={"TERM": "xterm"}), raw


def test_nothing_is_written_off_a_terminal() -> None:
    console, raw = _console(terminal=False)
    with progress_on(console) as progress:
        _work(progress)
    assert isinstance(progress, NullProgress)
    assert raw.getvalue() == b""


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_terminal_sees_stages_with_their_counts_and_is_left_clean(encoding: str) -> None:
    console, raw = _console(terminal=True, encoding=encoding)
    with progress_on(console) as progress, progress.stage("singular values", total=24) as stage:
        stage.advance(7)
        progress._bars.refresh()  # type: ignore[attr-defined]
    shown = raw.getvalue().decode(encoding)
    assert "singular values" in shown
    assert "7/24" in shown
    assert shown.endswith(("\x1b[2K", "\x1b[?25h", "\r"))


def test_time_left_is_shown_once_it_is_known() -> None:
    console, raw = _console(terminal=True)
    with progress_on(console) as progress, progress.stage("steps", total=1000) as stage:
        for _ in range(5):
            stage.advance()
            time.sleep(0.01)
        progress._bars.refresh()  # type: ignore[attr-defined]
    assert re.search(r"\d\d:\d\d left", re.sub(r"\x1b\[[0-9;]*m", "", raw.getvalue().decode()))


def test_an_error_passes_through_and_ends_every_stage() -> None:
    console, _ = _console(terminal=True)
    with pytest.raises(ZeroDivisionError), progress_on(console) as progress, progress.stage("steps"):
        raise ZeroDivisionError
    assert progress._bars.task_ids == []  # type: ignore[attr-defined]


def test_the_silent_reporter_accepts_every_call() -> None:
    with NullProgress().stage("anything", total=3) as stage:
        assert stage.advance(2) is None
