"""Sinks: the real trackers take a run's records, and what they stored is read back."""

from __future__ import annotations

import logging
import math
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from run_cases import diverged, info, records

from dynstab.core.errors import ConfigError
from dynstab.core.run import RunInfo
from dynstab.monitor.scalars import scalars
from dynstab.monitor.sinks import Sink, find_sink, sinks
from dynstab.monitor.tables import Record


def feed(sink: Sink, steps: int = 200) -> None:
    sink.open(info())
    for record in records(steps, diverges=True):
        sink.write(record)
    sink.close()


def test_every_module_is_a_sink_by_its_name() -> None:
    assert sinks() == ["logging", "mlflow", "tensorboard", "wandb"]


def test_no_sink_is_imported_before_it_is_asked_for() -> None:
    code = (
        "import sys, dynstab.monitor.sinks, dynstab.monitor.store\n"
        "print([name for name in ('torch', 'wandb', 'mlflow', 'tensorboard') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_an_object_with_the_three_methods_is_a_sink() -> None:
    class Mine:
        def open(self, info: RunInfo) -> None: ...
        def write(self, record: Record) -> None: ...
        def close(self) -> None: ...

    mine = Mine()
    assert find_sink(mine) is mine
    with pytest.raises(ConfigError, match="sink of type int; expected an object with open, write and close, or one of"):
        find_sink(3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no sink 'tensorbord'; expected one of logging, mlflow, tensorboard, wandb"):
        find_sink("tensorbord")


def test_a_package_that_is_missing_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.delitem(sys.modules, "dynstab.monitor.sinks.mlflow", raising=False)
    with pytest.raises(
        ConfigError, match=r"mlflow needs a package that is not installed.*pip install 'dynstab\[mlflow\]'"
    ):
        find_sink("mlflow")


def test_numbers_that_were_not_taken_are_left_out() -> None:
    signal = diverged().signals[1]
    assert all(math.isnan(value) for value in signal.update_norm)
    names = scalars(signal, info())
    assert "dynstab/largest_relative_update" not in names
    assert names["dynstab/gradient_norm"] == pytest.approx(math.hypot(*signal.gradient_norm))


def test_steps_of_one_name_keep_numbers_of_their_own() -> None:
    twice = info().model_copy(update={"steps": ("relu",) * 6})
    probe = diverged().probes[0]
    names = scalars(probe, twice)
    assert [names[f"dynstab/step_gain/{i} relu"] for i in range(6)] == list(probe.step_gains)
    assert "dynstab/step_gain/0" in scalars(probe, info().model_copy(update={"steps": ()}))


def test_logging_tells_findings_at_their_severity(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="dynstab.monitor"):
        feed(find_sink("logging"))
    levels = [(record.levelname, record.getMessage()) for record in caplog.records]
    warned = [text for level, text in levels if level == "WARNING"]
    failed = [text for level, text in levels if level == "ERROR"]
    assert warned == [
        "step 124: DS703 update-spike (warning) at embed: "
        "The update of embed is 6.1 times its median over the last 100 steps."
    ]
    assert len(failed) == 2 and failed[1].endswith("analysed in a-post-mortem-160.json")
    assert sum("exponent/0" in text for level, text in levels if level == "INFO") == 10


def test_tensorboard_shows_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="pip install 'dynstab[tensorboard]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        from dynstab.monitor.sinks.tensorboard import TensorBoardSink

        feed(TensorBoardSink(tmp_path, every=5))
        events = EventAccumulator(str(tmp_path))
        events.Reload()
        run = diverged()
        losses = events.Scalars("dynstab/loss")
        assert [event.step for event in losses] == list(range(0, 200, 5))
        assert losses[3].value == pytest.approx(run.signals[15].loss)
        gains = events.Scalars("dynstab/step_gain/2 blocks.2")
        assert [event.value for event in gains] == pytest.approx([probe.step_gains[2] for probe in run.probes])
        assert len(events.Tensors("dynstab/findings/text_summary")) == 3


def test_tensorboard_writes_into_a_writer_of_the_user_and_leaves_it_open(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="pip install 'dynstab[tensorboard]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.utils.tensorboard import SummaryWriter

        from dynstab.monitor.sinks.tensorboard import TensorBoardSink

        writer = SummaryWriter(str(tmp_path))
        feed(TensorBoardSink(writer=writer), steps=20)
        writer.add_scalar("own", 1.0, 21)
        writer.close()
    assert [path.name for path in tmp_path.iterdir()]


@pytest.mark.process
def test_wandb_offline_holds_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="pip install 'dynstab[wandb]'")
    code = """
import wandb
from run_cases import info, records
from dynstab.monitor.sinks import find_sink
sink = find_sink("wandb")
sink.open(info())
for record in records(200, diverges=True):
    sink.write(record)
summary = dict(wandb.run.summary)
sink.close()
assert wandb.run is None
print("SUMMARY", summary["dynstab/step"], summary["dynstab/exponent/0"])
"""
    tests = Path(__file__).parent.parent
    environment = {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true", "HOME": str(tmp_path)}
    environment |= {"PYTHONPATH": f"{tests}:{tests.parent}", "PATH": "/usr/bin:/bin"}
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert found.returncode == 0, found.stderr
    step, exponent = found.stdout.split("SUMMARY")[1].split()
    assert int(step) == 190 and float(exponent) == pytest.approx(diverged().probes[-1].exponents[0])
    assert list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))


def test_mlflow_holds_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="pip install 'dynstab[mlflow]'")
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow

        from dynstab.monitor.sinks.mlflow import MlflowSink

        mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
        with mlflow.start_run() as active:
            feed(MlflowSink())
            client = mlflow.MlflowClient()
            assert client.get_run(active.info.run_id).info.status == "RUNNING"
        history = client.get_metric_history(active.info.run_id, "dynstab/exponent/0")
        assert [metric.value for metric in history] == pytest.approx([p.exponents[0] for p in diverged().probes])
        losses = client.get_metric_history(active.info.run_id, "dynstab/loss")
        assert [metric.step for metric in losses] == list(range(0, 200, 10))
        tags = client.get_run(active.info.run_id).data.tags
        assert tags["dynstab/update-spike"].startswith("step 124: DS703")
