"""stdout and stderr: a glyph that a terminal lacks ends nothing, and a full disk is told in a sentence."""

from __future__ import annotations

import io
import os
import sys

from dynstab.cli.exits import Failure


class _Stdout(io.TextIOWrapper):
    """A stdout that cannot be written is told in a sentence; a reader that went away stays a `BrokenPipeError`."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise self._told(error) from None

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise self._told(error) from None

    def _told(self, error: OSError) -> Exception:
        # Python flushes once more at exit; let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
        if isinstance(error, BrokenPipeError):
            return error
        cause = error.strerror or error
        return Failure(f"stdout cannot be written ({cause}); the files that were asked for are written before it.")


def prepare() -> None:
    """Put the process's streams right, before anything is printed."""
    if sys.stdout is None:  # closed by whoever started the process
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    elif isinstance(sys.stdout, io.TextIOWrapper):
        raw = open(sys.stdout.fileno(), "wb", closefd=False)  # noqa: SIM115
        sys.stdout = _Stdout(raw, encoding=sys.stdout.encoding, line_buffering=sys.stdout.line_buffering)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a glyph shows its code; it never ends the run.
        getattr(stream, "reconfigure", lambda **_: None)(errors="backslashreplace")
