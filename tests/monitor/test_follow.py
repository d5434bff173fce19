"""Following a run: what is known grows with the file, and does not outgrow a page."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from run_cases import info, records, settled

from dynstab.monitor import follow
from dynstab.monitor.follow import Follower
from dynstab.monitor.store import RunStore, read_run


def test_a_follower_knows_what_a_reader_of_the_whole_knows(tmp_path: Path) -> None:
    store, written = RunStore.create(tmp_path / "a.sqlite", info()), list(records(200, diverges=True))
    for record in written[:50]:
        store.write(record)
    follower = Follower(store.path)
    for record in written[50:]:
        store.write(record)
        if record.step % 11 == 0:
            follower.update()
    store.finish()
    follower.update()
    store.close()
    assert follower.run.model_dump_json() == read_run(store.path).model_dump_json()


def test_a_resumed_run_is_followed_on(tmp_path: Path) -> None:
    store, written = RunStore.create(tmp_path / "a.sqlite", info()), list(records(200, diverges=False))
    for record in written[:100]:
        store.write(record)
    store.close()
    follower = Follower(tmp_path / "a.sqlite")
    again = RunStore.resume(tmp_path / "a.sqlite", info(), step=50)
    late = [record for record in written if record.step > 50][:20]
    for record in late:
        again.write(record)
    again.close()
    assert [(type(each), each.step) for each in follower.update()] == [(type(each), each.step) for each in late]
    assert follower.run.model_dump_json() == read_run(tmp_path / "a.sqlite").model_dump_json()


def test_memory_is_bounded_and_spikes_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "MOST", 50)
    store, signal = RunStore.create(tmp_path / "a.sqlite", info()), settled(1).signals[0]
    follower = Follower(store.path)
    for step in range(1000):
        loss = math.nan if step == 300 else 9.0 if step == 500 else 1.0
        store.write(signal.model_copy(update={"step": step, "loss": loss}))
        if step % 10 == 0:
            follower.update()
    store.close()
    steps = [each.step for each in follower.run.signals]
    assert len(steps) <= 100 and {0, 300, 500} <= set(steps) and steps == sorted(steps)
    assert follower.run.thinned_from == 991
