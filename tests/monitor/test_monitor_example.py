"""The example of a plain loop finds what it promises to find."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "monitor_plain_loop.py"


def test_a_learning_rate_that_grows_without_end_is_told_before_the_loss_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("sklearn", reason="the example trains on scikit-learn's digits")
    spec = importlib.util.spec_from_file_location("example_monitor_plain_loop", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.CRITICAL, "dynstab.monitor"):  # puts back the level that the example sets
        found = module.main(steps=120)

    steps, incidents = found["healthy"]
    assert steps == 120 and not incidents
    steps, incidents = found["ramp"]
    assert steps < 120
    # Records are judged two at a time: the step of the error, or one more.
    error = next(incident for incident in incidents if incident.flag.severity == "error")
    assert error.step >= incidents[-1].step - 1
    assert incidents[0].step <= error.step - 20
    strike = next(incident for incident in incidents if incident.flag.name == "loss-spike")
    assert (tmp_path / "runs" / f"ramp.step-{strike.step}.json").exists()
