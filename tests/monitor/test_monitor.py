"""The monitor in a loop: what it records and finds, how it stops, and what it does when something goes wrong."""

from __future__ import annotations

import logging
import math
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import dynstab
from dynstab.core.errors import ConfigError, InputError, StoreError
from dynstab.core.run import Incident, Run, RunInfo
from dynstab.monitor import outlets
from dynstab.monitor.store import RunStore, read_run
from dynstab.monitor.tables import Record


class Training:
    """A small network and its loop."""

    def __init__(self, path: Path, **options: Any) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(3)))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05)
        self.inputs, self.targets = torch.randn(8, 4), torch.randn(8, 4)
        self.path, self.losses = path, []
        options = {"probe": self.inputs, "every": 5, "share": None, "run": path, "optimizer": self.optimizer, **options}
        self.monitor = dynstab.Monitor(self.model, **options)

    def step(self, number: int, spoil: float = 1.0) -> None:
        self.optimizer.zero_grad()
        loss = mse_loss(self.model(self.inputs), self.targets) * spoil
        loss.backward()
        self.optimizer.step()
        self.losses.append(float(loss.detach()))
        self.monitor.step(number, loss=loss)

    def run(self, steps: int, *, each: Callable[[int], None] = lambda step: None, nan_at: int | None = None) -> Run:
        with self.monitor:
            for number in range(steps):
                each(number)
                self.step(number, math.nan if number == nan_at else 1.0)
        return self.stored

    @property
    def stored(self) -> Run:
        return read_run(self.path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "a.sqlite"


class Sink:
    """Keeps what it is given, and fails where it is told to."""

    def __init__(self, fails_at: str = "") -> None:
        self.fails_at, self.records, self.calls = fails_at, [], []

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name == self.fails_at:
            raise RuntimeError(f"no {name} today")

    def open(self, info: RunInfo) -> None:
        self._called("open")

    def write(self, record: Record) -> None:
        self._called("write")
        self.records.append(record)

    def close(self) -> None:
        self._called("close")


def test_every_step_is_recorded_and_every_fifth_is_probed(path: Path) -> None:
    run = Training(path).run(12)
    assert [signal.step for signal in run.signals] == list(range(12))
    assert [probe.step for probe in run.probes] == [0, 5, 10]
    assert run.finished
    assert run.info.places == run.info.groups == ("0", "1", "2")
    assert len(run.info.steps) == len(run.probes[0].step_gains) == len(run.probes[0].gradient_flow) - 1
    assert run.info.optimizer == "SGD"
    assert all(probe.cost > 0 for probe in run.probes)


def test_signals_alone_need_no_probe(path: Path) -> None:
    run = Training(path, probe=None).run(3)
    assert len(run.signals) == 3
    assert run.probes == run.info.steps == ()


def test_a_network_that_cannot_be_probed_is_listened_to(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Cut(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ones_like(x, requires_grad=True)

    training = Training(path)
    training.model[2] = Cut()
    run = training.run(3)
    assert len(run.signals) == 3
    assert run.probes == run.info.steps == ()
    assert "signals alone are taken" in caplog.text


def test_epochs_that_count_from_zero_are_counted_on(path: Path) -> None:
    training = Training(path, every=4)
    with training.monitor:
        for _ in range(3):
            for number in range(3):
                training.step(number)
    assert [signal.step for signal in training.stored.signals] == list(range(9))
    assert [probe.step for probe in training.stored.probes] == [0, 4, 8]


def test_a_resumed_training_goes_on_in_the_same_store(path: Path) -> None:
    first = Training(path)
    with first.monitor:
        for number in range(7):
            first.step(number)
            if number == 4:
                state = first.monitor.state_dict()
    second = Training(path)
    second.monitor.load_state_dict(state)
    with second.monitor:
        for number in range(5, 9):
            second.step(number)
    assert [signal.step for signal in second.stored.signals] == list(range(9))
    assert list(path.parent.glob("*.sqlite")) == [path]


def test_where_the_store_of_a_checkpoint_is_gone_a_new_one_begins_at_the_path_that_was_asked_for(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A checkpoint that went to another machine names a folder that may not even be made there."""
    training = Training(path)
    training.monitor.load_state_dict({"run": "/proc/elsewhere/a.sqlite", "step": 4, "seconds": 1.0})
    with training.monitor:
        training.step(5)
    assert training.monitor.path == path
    assert [signal.step for signal in training.stored.signals] == [5]
    assert f"/proc/elsewhere/a.sqlite is gone: a new one begins at {path}" in caplog.text


def test_a_monitor_that_is_opened_again_goes_on_in_the_same_store(path: Path) -> None:
    training = Training(path)
    training.run(3)
    with training.monitor:
        training.step(3)
    assert [signal.step for signal in training.stored.signals] == [0, 1, 2, 3]
    assert training.stored.finished
    assert list(path.parent.glob("*.sqlite")) == [path]


def test_a_loss_that_is_not_a_number_is_found_told_and_analysed(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told: list[Incident] = []
    run = Training(path, on_flag=told.append).run(40, nan_at=20)
    assert any(incident.flag.name == "non-finite-training" for incident in run.incidents)
    assert [(i.step, i.flag.code) for i in told] == [(i.step, i.flag.code) for i in run.incidents]
    assert all(f"{i.flag.code} {i.flag.name}" in caplog.text for i in run.incidents)
    (post_mortem,) = run.post_mortems
    assert 20 <= post_mortem.step <= 21
    assert post_mortem.report is not None
    report = dynstab.Report.load(path.parent / post_mortem.report)
    assert report.model.class_name == "Sequential"
    records = (path.parent / f"a.step-{post_mortem.step}.records.jsonl").read_text().splitlines()
    assert len(records) > 20


def test_a_training_that_stops_on_errors_ends_quietly_and_its_run_is_whole(path: Path) -> None:
    training = Training(path, stop_on="error")
    run = training.run(60, nan_at=20)
    assert training.monitor.should_stop
    assert 20 <= len(run.signals) - 1 <= 22
    assert run.finished
    assert [i.flag.code for i in training.monitor.incidents] == [i.flag.code for i in run.incidents]


def test_the_users_function_can_stop_the_training(path: Path) -> None:
    def stop(incident: Incident) -> None:
        raise dynstab.StopTraining(incident)

    run = Training(path, on_flag=stop).run(60, nan_at=20)
    assert len(run.signals) < 25


def test_whatever_else_the_users_function_raises_is_logged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def broken(_incident: Incident) -> None:
        raise ValueError("my own mistake")

    run = Training(path, on_flag=broken).run(40, nan_at=20)
    assert len(run.signals) == 40
    assert "my own mistake" in caplog.text


@pytest.mark.parametrize("call", ["open", "write", "close"])
def test_a_sink_that_fails_gets_no_more_and_the_training_goes_on(
    path: Path, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    broken, good = Sink(call), Sink()
    run = Training(path, sinks=[broken, good]).run(6)
    assert len(run.signals) == 6
    assert len(good.records) == 6 + 2
    assert broken.calls.count(call) == 1
    assert f"no {call} today" in caplog.text


def test_a_full_disk_leaves_the_training_and_what_was_written(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    training, write = Training(path), RunStore.write

    def full(store: RunStore, record: Record) -> None:
        if record.step >= 4:
            raise StoreError("database or disk is full")
        write(store, record)

    monkeypatch.setattr(RunStore, "write", full)
    run = training.run(10)
    assert len(training.losses) == 10
    assert [signal.step for signal in run.signals] == [0, 1, 2, 3]
    assert not run.finished
    assert caplog.text.count("records wait in memory") == 1


def test_a_store_that_another_program_locks_gets_its_records_afterwards(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlets, "_PATIENCE", 0.0)
    other: list[sqlite3.Connection] = []

    def each(step: int) -> None:
        if step == 3:
            other.append(sqlite3.connect(path, isolation_level=None))
            other[0].execute("BEGIN IMMEDIATE")
        if step == 6:
            other[0].execute("ROLLBACK")
            other[0].close()

    run = Training(path).run(9, each=each)
    assert [signal.step for signal in run.signals] == list(range(9))
    assert run.finished


def test_a_store_that_cannot_be_made_is_told_before_the_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    training = Training(tmp_path / "file" / "a.sqlite")
    with pytest.raises(StoreError), training.monitor:
        pass
    assert not training.model[0]._forward_hooks


def test_an_interrupted_training_keeps_its_run_up_to_then(path: Path) -> None:
    def interrupt(step: int) -> None:
        if step == 5:
            raise KeyboardInterrupt

    training = Training(path)
    with pytest.raises(KeyboardInterrupt):
        training.run(10, each=interrupt)
    assert len(training.stored.signals) == 5
    assert not training.stored.finished
    assert not training.model[0]._forward_hooks


def test_two_monitors_on_one_model_are_refused(path: Path) -> None:
    training = Training(path)
    with training.monitor:
        second = dynstab.Monitor(training.model)
        with pytest.raises(ConfigError, match="second monitor on one model"), second:
            pass
        training.step(0)
    assert len(training.stored.signals) == 1
    with dynstab.Monitor(training.model):
        pass


def test_a_model_that_was_replaced_is_noticed_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    training = Training(path)

    def replace(step: int) -> None:
        if step == 4:
            training.optimizer.zero_grad()
            training.model = nn.Sequential(nn.Linear(4, 4))
            training.optimizer = torch.optim.SGD(training.model.parameters(), lr=0.05)

    run = training.run(10, each=replace)
    assert len(run.signals) == 10
    assert caplog.text.count("takes no part in the training") == 1


def test_a_layer_that_was_replaced_ends_the_probes_and_not_the_training(path: Path) -> None:
    training = Training(path)

    def replace(step: int) -> None:
        if step == 3:
            training.model[1] = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))

    run = training.run(8, each=replace)
    assert len(run.signals) == 8
    assert [bool(probe.exponents) for probe in run.probes] == [True, False]
    assert "the model was changed" in run.probes[1].outcome


def test_a_probe_of_other_shapes_is_refused_where_it_is_assigned(path: Path) -> None:
    training = Training(path)

    def each(step: int) -> None:
        if step == 3:
            with pytest.raises(InputError, match="rejects"):
                training.monitor.probe = torch.randn(2, 7)
        if step == 7:
            training.monitor.probe = training.inputs + 1

    run = training.run(12, each=each)
    assert all(probe.exponents for probe in run.probes)


def test_a_probe_that_the_model_rejects_is_told_before_the_training(path: Path) -> None:
    training = Training(path, probe=torch.randn(2, 7))
    with pytest.raises(InputError, match="the model rejects"), training.monitor:
        pass
    assert not path.exists()


def test_a_rule_that_fails_ends_the_judging_and_not_the_training(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_history: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("dynstab.monitor.recorder.watch", broken)
    assert len(Training(path).run(6).signals) == 6
    assert caplog.text.count("a rule failed") == 1


def test_a_run_that_is_lost_is_written_out_once(path: Path) -> None:
    run = Training(path).run(90, nan_at=20)
    assert all(math.isnan(signal.loss or 0.0) for signal in run.signals[21:])
    assert len(run.post_mortems) == 1


@pytest.mark.parametrize("last", [7, 8])
def test_a_killed_process_leaves_all_but_its_last_record(path: Path, last: int) -> None:
    program = f"""
import os, torch, dynstab
from torch import nn
model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
with dynstab.Monitor(model, probe=torch.randn(2, 4), run={str(path)!r}, share=None, every=3) as monitor:
    for step in range(10):
        model(torch.randn(2, 4)).sum().backward()
        monitor.step(step)
        if step == {last}:
            os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert done.returncode == -9
    run = read_run(path)
    assert len(run.signals) >= last and len(run.probes) == 3
    assert not run.finished


def test_a_checkpoint_finds_the_record_of_its_step_in_the_store(path: Path) -> None:
    training = Training(path, probe=None)
    with training.monitor as monitor:
        for number in range(5):
            training.step(number)
            assert monitor.state_dict()["step"] == number
            assert [signal.step for signal in training.stored.signals] == list(range(number + 1))


def test_the_state_may_be_asked_for_when_a_finding_is_told(path: Path) -> None:
    steps: list[int] = []
    training = Training(path, on_flag=lambda incident: steps.append(training.monitor.state_dict()["step"]))
    run = training.run(30, nan_at=20)
    assert [signal.step for signal in run.signals] == list(range(30))
    assert steps[0] in (20, 21)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every=0"),
        ({"inputs": 0}, "inputs=0"),
        ({"k": 0}, "k=0"),
        ({"stop_on": "never"}, "stop_on='never'"),
        ({"sharpness_every": 50}, "sharpness_every=50 without loss_fn"),
        ({"probe": None, "loss_fn": lambda model, batch: 0}, "loss_fn without a probe"),
    ],
)
def test_options_that_cannot_be_served_are_refused(path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Training(path, **options)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: "model", "a model of type str"),
        (lambda: nn.Sequential(nn.LazyLinear(3)), "lazy layers whose sizes are not known yet"),
        (lambda: torch.jit.script(nn.Linear(2, 2)), "a TorchScript module"),
    ],
    ids=["text", "lazy", "TorchScript"],
)
@pytest.mark.filterwarnings("ignore:.*jit.script:DeprecationWarning", "ignore:Lazy modules:UserWarning")
def test_a_model_that_cannot_be_listened_to_is_refused_and_left_alone(model: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dynstab.Monitor(model(), probe=torch.randn(4, 5))


@pytest.mark.parametrize("step", [1.5, "3", None, 2**63])
def test_a_step_that_no_store_could_hold_is_refused(path: Path, step: Any) -> None:
    training = Training(path)
    with training.monitor, pytest.raises(ConfigError, match="expected the number of the training step"):
        training.monitor.step(step)


def test_a_step_outside_of_the_block_is_refused(path: Path) -> None:
    with pytest.raises(ConfigError, match="not open"):
        Training(path).monitor.step(0)


def test_findings_reach_the_console_once_where_the_logging_sink_tells_them_too(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="dynstab.monitor")
    Training(path, sinks=["logging"]).run(30, nan_at=20)
    assert caplog.text.count("non-finite-training (error)") == 1


def test_a_run_is_moved_as_one_file(path: Path, tmp_path: Path) -> None:
    run = Training(path).run(4)
    moved = shutil.move(path, tmp_path / "b.sqlite")
    assert read_run(moved).model_dump_json() == run.model_dump_json()
