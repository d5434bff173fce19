"""The commands that read a training run's file: watch, render, compare."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from click.testing import Result
from run_cases import info, records

from dynstab.core.run import Run
from dynstab.monitor.store import RunStore

Cli = Callable[..., Result]


def _write(path: Path, *, diverges: bool) -> Path:
    store = RunStore.create(path, info())
    for record in records(200, diverges=diverges):
        store.write(record)
    if not diverges:
        store.finish()
    store.close()
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {
        "good": _write(folder / "good.sqlite", diverges=False),
        "bad": _write(folder / "bad.sqlite", diverges=True),
    }


def test_render_says_first_where_it_began(dynstab: Cli, runs: dict[str, Path]) -> None:
    result = dynstab("render", runs["bad"])
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert said.startswith("✖ It began at step 124: update-spike at embed (DS703), 36 steps before the first error, ")
    assert dynstab("watch", runs["bad"], "--once").output == result.output


def test_fail_on_counts_findings_over_time(dynstab: Cli, runs: dict[str, Path]) -> None:
    assert dynstab("render", runs["bad"], "--fail-on", "error").exit_code == 1
    assert dynstab("render", runs["good"], "--fail-on", "warning").exit_code == 0


def test_json_is_the_whole_run(dynstab: Cli, runs: dict[str, Path], tmp_path: Path) -> None:
    printed = dynstab("render", runs["bad"], "--json", "-")
    run = Run.model_validate_json(printed.stdout)
    assert (len(run.signals), len(run.probes), len(run.incidents)) == (200, 10, 2)
    dynstab("render", runs["bad"], "--json", tmp_path / "run.json")
    assert (tmp_path / "run.json").read_text() == printed.stdout.rstrip("\n")


def test_json_lines_are_the_records_in_their_order(dynstab: Cli, runs: dict[str, Path], tmp_path: Path) -> None:
    assert dynstab("render", runs["bad"], "--jsonl", tmp_path / "run.jsonl").exit_code == 0
    lines = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    assert lines[0]["record"] == "info" and lines[0]["optimizer"] == "AdamW"
    expected = [
        type(record).__name__.lower().replace("postmortem", "post_mortem") for record in records(200, diverges=True)
    ]
    assert [line["record"] for line in lines[1:]] == expected
    assert lines[2]["step_gains"][1] == 0.016829420
    assert [line["loss"] for line in lines if line["record"] == "signal"][-1] == "NaN"


def test_html_is_written_beside_what_is_printed(dynstab: Cli, runs: dict[str, Path], tmp_path: Path) -> None:
    result = dynstab("render", runs["bad"], "--html", tmp_path / "run.html")
    assert "It began at step 124" in result.output
    text = (tmp_path / "run.html").read_text()
    assert "It began at step 124" in text
    assert f'href="{os.path.relpath(runs["bad"].parent, tmp_path)}/a-post-mortem-160.json"' in text
    assert dynstab("render", runs["bad"], "--format", "html").output.rstrip() in text.replace(
        os.path.relpath(runs["bad"].parent, tmp_path) + "/", ""
    )


def test_what_only_reports_or_only_runs_have_is_one_sentence(
    dynstab: Cli, runs: dict[str, Path], tmp_path: Path
) -> None:
    sarif = dynstab("render", runs["bad"], "--format", "sarif")
    assert (sarif.exit_code, sarif.output) == (
        2,
        "Error: a training run has no format sarif; expected console, html or json.\n",
    )
    (tmp_path / "r.json").write_text("{}")
    assert "--jsonl is for the file of a training run" in dynstab("render", "r.json", "--jsonl", "-").output
    (tmp_path / "r.sqlite").write_bytes(b"SQLite format 3\0" + b"\0" * 200)
    broken = dynstab("render", "r.sqlite")
    assert broken.exit_code == 2 and "Traceback" not in broken.output and "r.sqlite" in broken.output
    assert "there is no run gone.sqlite" in dynstab("watch", "gone.sqlite").output


def test_compare_of_runs_tells_what_came_and_when(dynstab: Cli, runs: dict[str, Path]) -> None:
    result = dynstab("compare", runs["good"], runs["bad"])
    assert result.exit_code == 0, result.output
    assert "came     DS706 loss-spike: none → error at step 160" in result.output
    assert "The losses differ from step 121 on." in result.output
    data = json.loads(dynstab("compare", runs["good"], runs["bad"], "--json", "-").stdout)
    assert data["parted"] == 121 and data["tail"] == [179, 199]
    dynstab("compare", runs["good"], runs["bad"], "--html", "c.html")
    assert "The losses differ from step 121 on." in Path("c.html").read_text()
    Path("r.json").write_text("{}")
    mixed = dynstab("compare", runs["good"], "r.json")
    assert mixed.exit_code == 2 and "r.json is no training run" in mixed.output
    gone = dynstab("compare", runs["good"], "gone.sqlite")
    assert gone.exit_code == 2 and "there is no file gone.sqlite" in gone.output


def test_watch_off_a_terminal_prints_new_records_until_the_run_is_finished(dynstab: Cli, tmp_path: Path) -> None:
    written = list(records(200, diverges=True))
    store = RunStore.create(tmp_path / "run.sqlite", info())
    for record in written[:60]:
        store.write(record)

    def train() -> None:
        for record in written[60:]:
            store.write(record)
            time.sleep(0.002)
        store.finish()

    training = threading.Thread(target=train)
    training.start()
    result = dynstab("watch", "run.sqlite", "--interval", "0.05")
    training.join()
    store.close()
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert re.match(r"step \d+: loss [01]\.", lines[0])
    assert [line for line in lines if "DS706" in line] == [
        "step 160: ERROR DS706 loss-spike at loss: The loss is 8 times its running median."
    ]
    probed = [int(line.split(":")[0].removeprefix("step ")) for line in lines if "probe in 0.031 s" in line]
    assert len(probed) > 1 and probed == list(range(probed[0], 200, 20))
    assert "loss NaN" in lines[-1] and lines[-1].startswith("step 199")


@pytest.mark.process
@pytest.mark.parametrize("width", [80, 200])
def test_watch_on_a_terminal_paints_within_its_window_and_ends_with_the_run(runs: dict[str, Path], width: int) -> None:
    text = _in_terminal(runs["good"], width)
    assert "No warning up to step 199." in text and "leading exponent" in text
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.process
def test_ctrl_c_ends_watching_and_nothing_else(runs: dict[str, Path]) -> None:
    command = [sys.executable, "-m", "dynstab", "watch", str(runs["bad"])]
    # A suite that runs in the background ignores the signal, and its children would too.
    listening = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=listening
    ) as child:
        assert child.stdout is not None and child.stderr is not None
        assert child.stdout.readline().startswith("step 199: loss NaN")
        child.send_signal(signal.SIGINT)
        assert child.stderr.read() == ""
    assert child.returncode == 0


def _in_terminal(run: Path, width: int) -> str:
    """What `dynstab watch` leaves on a pseudo-terminal of that width."""
    pty = pytest.importorskip("pty", reason="needs a pseudo-terminal")
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(width), "LINES": "30", "TERM": "xterm", "NO_COLOR": "1"}
    child = subprocess.Popen(
        [sys.executable, "-m", "dynstab", "watch", str(run)],
        stdout=theirs,
        stdin=theirs,
        stderr=theirs,
        env=environment,
    )
    os.close(theirs)
    text = b"".join(_chunks(ours))
    assert child.wait(timeout=60) == 0
    os.close(ours)
    return "\n".join(_plain(line) for line in text.decode().replace("\r", "\n").split("\n"))


def _chunks(descriptor: int) -> Iterator[bytes]:
    """Until the other side is closed, which Linux reports as an error."""
    try:
        while chunk := os.read(descriptor, 65536):
            yield chunk
    except OSError:
        return


def _plain(line: str) -> str:

    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).rstrip()
