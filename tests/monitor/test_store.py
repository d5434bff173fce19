"""The store of a run: what is written is read back, whatever happens to the process that wrote it."""

from __future__ import annotations

import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from run_cases import diverged, info, records

from dynstab.core.errors import StoreError
from dynstab.core.run import Run
from dynstab.monitor.sqlite import PATIENCE
from dynstab.monitor.store import RunReader, RunStore, is_run, read_run
from dynstab.monitor.tables import APPLICATION_ID, TABLES


def write(path: Path, *, steps: int = 200, diverges: bool = True) -> RunStore:
    store = RunStore.create(path, info())
    for record in records(steps, diverges=diverges):
        store.write(record)
    return store


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[RunStore]:
    store = write(tmp_path / "runs" / "deep" / "a.sqlite")
    yield store
    store.close()


def plain(run: Run) -> dict:
    """A run as data in which NaN equals NaN, every number rounded to float32."""

    def rounded(value: object) -> object:
        if isinstance(value, float):
            return "NaN" if math.isnan(value) else float(np.float32(value))
        if isinstance(value, dict):
            return {name: rounded(each) for name, each in value.items()}
        return [rounded(each) for each in value] if isinstance(value, (list, tuple)) else value

    return rounded(run.model_dump())  # type: ignore[return-value]


def test_a_run_that_is_written_is_read_back(stored: RunStore) -> None:
    assert plain(read_run(stored.path)) == plain(diverged())
    stored.finish()
    stored.close()
    assert read_run(stored.path).finished


def test_a_loss_that_is_not_a_number_differs_from_one_that_was_not_given(tmp_path: Path) -> None:
    store = RunStore.create(tmp_path / "a.sqlite", info())
    first = diverged().signals[0]
    for loss in (math.nan, None, math.inf, 0.1):
        store.write(first.model_copy(update={"loss": loss}))
    losses = [each.loss for each in read_run(store.path).signals]
    store.close()
    assert losses[0] is not None and math.isnan(losses[0])
    assert losses[1:] == [None, math.inf, 0.1]


def test_the_closed_store_is_one_file_that_any_sqlite_client_reads(stored: RunStore) -> None:
    stored.finish()
    stored.close()
    assert [path.name for path in stored.path.parent.iterdir()] == ["a.sqlite"]
    with sqlite3.connect(stored.path) as client:
        assert client.execute("SELECT count(*), max(step) FROM signals").fetchone() == (200, 199)
        assert client.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    client.close()


def test_an_existing_run_is_never_overwritten(stored: RunStore) -> None:
    before = stored.path.read_bytes()
    second, third = RunStore.create(stored.path, info()), RunStore.create(stored.path, info())
    assert [second.path.name, third.path.name] == ["a-2.sqlite", "a-3.sqlite"]
    second.close()
    third.close()
    assert stored.path.read_bytes() == before


def test_a_resumed_run_goes_on_where_its_checkpoint_was(stored: RunStore) -> None:
    stored.finish()
    stored.close()
    again = RunStore.resume(stored.path, info(), step=99)
    assert again.path == stored.path
    kept = read_run(again.path)
    assert (kept.finished, kept.signals[-1].step, kept.incidents) == (False, 99, ())
    for record in records(200, diverges=True):
        if record.step > 99:
            again.write(record)
    again.close()
    assert plain(read_run(again.path)) == plain(diverged())


def test_another_network_does_not_continue_the_run(stored: RunStore) -> None:
    other = RunStore.resume(stored.path, info(blocks=3), step=10)
    assert other.path.name == "a-2.sqlite"
    other.close()
    assert len(read_run(stored.path).signals) == 200


def test_a_reader_sees_each_record_once_while_it_is_written(tmp_path: Path) -> None:
    store = RunStore.create(tmp_path / "a.sqlite", info())
    reader, seen, written = RunReader(store.path), [], list(records(170, diverges=True))
    for number, record in enumerate(written):
        store.write(record)
        if number % 7 == 0:
            seen += reader.new()
    seen += reader.new()
    assert [(type(each), each.step) for each in seen] == [(type(each), each.step) for each in written]
    assert not reader.finished
    store.finish()
    assert reader.finished and reader.new() == ()
    store.close()


WRITER = """
import sys
from pathlib import Path
from run_cases import info, records
from dynstab.monitor.store import RunStore
store = RunStore.create(sys.argv[1], info())
for record in records(10**9, diverges=False):
    store.write(record)
    print(record.step, flush=True)
"""


@pytest.mark.process
def test_a_killed_process_loses_at_most_its_last_record(tmp_path: Path) -> None:
    path, tests = tmp_path / "a.sqlite", Path(__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)])}
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        told = -1
        until = time.monotonic() + 0.5
        for line in child.stdout:
            told = int(line)
            if told > 100 and time.monotonic() > until:
                child.send_signal(signal.SIGKILL)
                break
        rest = child.stdout.read().splitlines()
    # What was printed after the kill was asked for was written before it came.
    told = max([told, *(int(line) for line in rest if line.strip().isdigit())])
    assert child.returncode == -signal.SIGKILL
    run = read_run(path)
    assert not run.finished
    steps = [each.step for each in run.signals]
    assert steps == list(range(len(steps))) and len(steps) >= told + 1
    assert RunReader(path).new()[-1].step == steps[-1]
    again = RunStore.resume(path, info(), step=50)
    again.close()
    assert len(read_run(path).signals) == 51


def test_a_full_disk_is_one_sentence_and_leaves_the_run_whole(stored: RunStore) -> None:
    connection = stored._connection
    assert connection is not None
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    more = records(10_000, diverges=False)
    with pytest.raises(StoreError, match=r"cannot be written \(database or disk is full\); make room"):
        for record in more:
            stored.write(record)
    whole = read_run(stored.path)
    assert plain(whole)["signals"][:200] == plain(diverged())["signals"]
    connection.execute("PRAGMA max_page_count = 1000000")
    stored.write(next(more))
    assert len(read_run(stored.path).signals) == len(whole.signals) + 1


def test_a_locked_store_is_one_sentence_and_waits_only_once(stored: RunStore) -> None:
    other = sqlite3.connect(stored.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    signals = diverged().signals
    with pytest.raises(StoreError, match="locked by another program; close that program"):
        stored.write(signals[0])
    start = time.monotonic()
    for record in signals[:20]:
        with pytest.raises(StoreError):
            stored.write(record)
    assert time.monotonic() - start < PATIENCE / 2
    other.execute("ROLLBACK")
    other.close()
    stored.write(signals[0])
    assert len(read_run(stored.path).signals) == 201


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be written \((Not a directory|File exists)\); choose another path"):
        RunStore.create(tmp_path / "file" / "a.sqlite", info())


def test_a_name_that_no_file_can_have_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written"):
        RunStore.create(tmp_path / f"{'long' * 100}.sqlite", info())


def test_a_store_that_cannot_be_begun_leaves_no_file_in_the_way_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr("dynstab.monitor.store.create_tables", full)
        with pytest.raises(StoreError, match="disk is full"):
            RunStore.create(tmp_path / "a.sqlite", info())
    assert not list(tmp_path.iterdir())
    begun = RunStore.create(tmp_path / "a.sqlite", info())
    begun.close()
    assert begun.path == tmp_path / "a.sqlite"


def test_a_closed_store_says_so(stored: RunStore) -> None:
    stored.close()
    stored.close()
    with pytest.raises(StoreError, match="is closed"):
        stored.write(diverged().signals[0])


def test_thinning_keeps_the_greatest_loss_and_what_is_not_a_number(tmp_path: Path) -> None:
    store = RunStore.create(tmp_path / "a.sqlite", info())
    for each in diverged().signals * 10:
        loss = {313: 50.0, 777: math.nan}.get(store._next_id, 1.0)
        store.write(each.model_copy(update={"step": store._next_id, "loss": loss}))
    thin = read_run(store.path, most=100).signals
    store.close()
    assert 50 <= len(thin) <= 102
    steps = [each.step for each in thin]
    assert steps == sorted(steps) and {1, 313, 777, 2000} <= set(steps)


def test_files_that_are_no_run_are_told_apart(tmp_path: Path, stored: RunStore) -> None:
    text, empty, foreign, broken = (tmp_path / name for name in ("t", "e", "f.sqlite", "b.sqlite"))
    text.write_text("SQLite is not in here")
    empty.write_bytes(b"")
    with sqlite3.connect(foreign) as client:
        client.execute("CREATE TABLE t (x)")
    client.close()
    stored.close()
    broken.write_bytes(stored.path.read_bytes()[:10_000])
    assert [is_run(path) for path in (text, empty, foreign, broken, tmp_path / "none")] == [
        False,
        False,
        True,
        True,
        False,
    ]
    for path, words in (
        (text, "not the store of a run"), (empty, "not the store of a run"), (foreign, "another program's SQLite file"),
        (broken, "cannot be read"), (tmp_path / "none", "there is no run"), (tmp_path, "is a folder"),
    ):  # fmt: skip
        with pytest.raises(StoreError, match=words):
            read_run(path)


def test_a_run_of_a_later_major_version_is_refused(stored: RunStore) -> None:
    with sqlite3.connect(stored.path) as client:
        client.execute('UPDATE run SET info = replace(info, \'"schema_version":"1\', \'"schema_version":"2\')')
    client.close()
    with pytest.raises(StoreError, match="schema version 2.0; expected 1.x"):
        read_run(stored.path)


def test_columns_of_other_versions_do_no_harm(stored: RunStore) -> None:
    with sqlite3.connect(stored.path) as client:
        client.execute("ALTER TABLE signals ADD COLUMN novelty TEXT")
        client.execute("ALTER TABLE signals DROP COLUMN update_norm")
    client.close()
    run = read_run(stored.path)
    assert run.signals[3].update_norm == () and run.signals[3].gradient_norm


def test_every_kind_of_record_has_its_table_named_as_in_the_run() -> None:
    assert {table.name for table in TABLES.values()} == set(Run.model_fields) - {"info", "finished", "thinned_from"}
