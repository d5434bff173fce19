"""Exit codes, besides 0 for done."""

from __future__ import annotations

import click

FINDINGS = 1  # at or above --fail-on
FAILED = 2  # usage, or the target could not be loaded or analysed
INTERRUPTED = 130  # by Ctrl-C, as shells count it
PIPE_CLOSED = 141  # the reader of stdout went away, as shells count it


class Failure(click.ClickException):
    """It could not be done, and the message says why."""

    exit_code = FAILED
