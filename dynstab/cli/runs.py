"""What the commands do with the file of a training run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.live import Live

from dynstab.cli.consoles import output
from dynstab.cli.delivery import Delivery
from dynstab.core.errors import ConfigError, StoreError
from dynstab.core.report import write_whole
from dynstab.core.run import Run, Signal
from dynstab.monitor.export import json_lines
from dynstab.monitor.follow import MOST, Follower
from dynstab.monitor.store import is_run, read_run
from dynstab.render.run.console import RunPage
from dynstab.render.run.lines import record_line

if TYPE_CHECKING:
    from dynstab.core.run_comparison import RunComparison
    from dynstab.diagnostics.over_time import RuleOverTime

FORMATS_OF_RUNS = ("console", "html", "json")
SILENCE = 10.0
"""Seconds without a record after which a live page says so."""


def render_run(path: str, delivery: Delivery, *, jsonl: str | None) -> int:
    """Write a run everywhere it was asked for, files first; the exit code.

    Raises:
        ConfigError: a format that only reports have.
    """
    from dynstab.render.run.page import write_run_html

    if delivery.format not in FORMATS_OF_RUNS:
        raise ConfigError(f"a training run has no format {delivery.format}", expected="console, html or json")
    run = read_run(path, most=MOST)
    if jsonl not in (None, "-"):
        write_whole(jsonl, "".join(line + "\n" for line in json_lines(path)))
    if delivery.json not in (None, "-"):
        write_whole(delivery.json, _json(path))
    if delivery.html is not None:
        write_run_html(run, delivery.html, store=path, rules=_rules(), assets=delivery.assets)
    _print_run(run, path, delivery, jsonl)
    return delivery.code(incident.flag for incident in run.incidents)


def _print_run(run: Run, path: str, delivery: Delivery, jsonl: str | None) -> None:
    """What goes to stdout: the records or the whole run where `-` asked for them, else the run in its format."""
    from dynstab.render.run.page import page

    if jsonl == "-":
        for each in json_lines(path):
            click.echo(each)
    if delivery.json == "-" or (jsonl != "-" and delivery.format == "json"):
        click.echo(_json(path))
    elif jsonl == "-":
        return
    elif delivery.format == "console":
        output().print(RunPage(run))
    else:
        click.echo(page(run, rules=_rules(), assets=delivery.assets).rstrip("\n"))


def _json(path: str) -> str:
    return read_run(path).model_dump_json(indent=1)


def compare_runs_of(paths: Sequence[str]) -> RunComparison | None:
    """The comparison of runs; None where the files are none.

    Raises:
        ConfigError: runs and reports together. StoreError: beside a run, no such file.
    """
    from dynstab.compare_runs import compare_runs

    runs = [is_run(path) for path in paths]
    if not any(runs):
        return None
    if not all(runs):
        other = paths[runs.index(False)]
        if not Path(other).exists():
            raise StoreError(f"there is no file {other}", expected="the file that a monitor writes")
        raise ConfigError(
            f"{other} is no training run, and {paths[runs.index(True)]} is one", expected="all of one kind"
        )
    return compare_runs([read_run(path, most=MOST) for path in paths], paths)


def watch_run(path: str, *, once: bool, interval: float) -> None:
    """Show a run until it is finished or the user has seen enough."""
    console = output()
    follower = Follower(path)
    with contextlib.suppress(KeyboardInterrupt):
        if once:
            console.print(RunPage(follower.run))
        elif console.is_terminal and not console.is_dumb_terminal:
            _paint(follower, console, interval)
        else:
            _log(follower, interval)


def _paint(follower: Follower, console: Console, interval: float) -> None:
    heard = time.monotonic()
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            quiet = time.monotonic() - heard
            live.update(_live(follower.run, console, quiet), refresh=True)
            if follower.run.finished:
                return
            time.sleep(interval)
            if follower.update():
                heard = time.monotonic()


def _live(run: Run, console: Console, quiet: float) -> RunPage:
    silent = quiet > SILENCE and not run.finished
    note = f"No record for {quiet:.0f} s: the training is slow, or no longer runs." if silent else ""
    return RunPage(run, live=True, height=console.height - 1, note=note)


def _log(follower: Follower, interval: float) -> None:
    """A line for every record; of the signals since the last look the latest alone."""
    for record in (*follower.run.signals[-1:], *follower.run.probes[-1:], *follower.run.incidents):
        click.echo(record_line(record))
    while not follower.run.finished:
        time.sleep(interval)
        new = follower.update()
        signals = [record for record in new if isinstance(record, Signal)]
        for record in new:
            if not isinstance(record, Signal) or record is signals[-1]:
                click.echo(record_line(record))


def _rules() -> Sequence[RuleOverTime]:
    from dynstab.diagnostics.over_time import rules_over_time

    return rules_over_time()
