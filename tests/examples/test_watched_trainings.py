"""The examples that watch a training by an adapter run, and their runs tell what they promise."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.filterwarnings("ignore")


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_learning_rate_that_grows_breaks_the_training_and_the_run_says_since_when(tmp_path: Path) -> None:
    pytest.importorskip("lightning", reason="pip install 'dynstab[lightning]'")
    run = example("monitor_lightning").main(steps=260, doubling=24, run=str(tmp_path / "a.sqlite"))
    assert run.finished and len(run.signals) == 260
    lost = next(signal.step for signal in run.signals if signal.loss is not None and not math.isfinite(signal.loss))
    assert run.incidents and run.incidents[0].step < lost
    ratios = [p.sharpness.value / p.threshold for p in run.probes if p.step < lost and p.sharpness and p.threshold]  # type: ignore[operator]
    assert ratios[0] < 0.2 < ratios[-1]


def test_a_transformer_that_learns_characters_is_watched_through_the_trainer(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="pip install 'dynstab[hf]'")
    pytest.importorskip("accelerate", reason="pip install 'dynstab[hf]'")
    run = example("monitor_trainer").main(steps=60, every=20, run=str(tmp_path / "a.sqlite"), out=str(tmp_path / "out"))
    assert run.finished and len(run.signals) == 60 and [probe.step for probe in run.probes] == [0, 20, 40]
    first, last = run.signals[0].loss, run.signals[-1].loss
    assert first is not None and last is not None and last < first - 0.5
