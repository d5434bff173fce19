"""Where results and where progress go: stdout and stderr, never the other way round."""

from __future__ import annotations

import sys

from rich.console import Console


class _Pipe(Console):
    """A console whose reader may go away: the application answers that, for every command alike."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def output() -> Console:
    """The console for results."""
    return _Pipe(file=sys.stdout)


def messages() -> Console:
    """The console for progress and notes."""
    return _Pipe(file=sys.stderr)
