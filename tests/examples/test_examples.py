"""Every example runs, and finds what it promises to find, at a small size."""

from __future__ import annotations

import importlib.util
import math
import re
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_pre_norm_transformer_is_stable(capsys: pytest.CaptureFixture[str]) -> None:
    report = example("analyze_transformer").main(layers=3, width=32, tokens=8, effort="quick")
    assert report.verdict.kind == "stable"
    assert report.verdict.summary.split()[0] in capsys.readouterr().out


def test_the_measured_edge_of_chaos_is_that_of_mean_field_theory() -> None:
    module = example("choose_initialization")
    # Width 128 shifts the edge by a few hundredths.
    assert module.main(width=128, depth=16, effort="quick") == pytest.approx(module.CRITICAL, abs=0.12)


@pytest.mark.process
def test_the_gate_stops_the_bad_checkpoint_alone() -> None:
    assert example("gate_checkpoints").main("--effort", "quick", "-k", "1") == {"good": 0, "bad": 1}


def test_lyapunov_spectra_meet_the_known_answers() -> None:
    module = example("lyapunov_spectrum")
    henon, rnn = module.main(henon_steps=4000, units=100, rnn_steps=300)
    assert henon[0].item() == pytest.approx(module.HENON[0], abs=0.02)
    assert henon.sum().item() == pytest.approx(math.log(0.3), abs=1e-9)
    assert rnn[0].item() == pytest.approx(module.RNN_LEADING, abs=0.08)


def test_singular_values_of_a_block_meet_the_dense_ones() -> None:
    import torch

    module = example("jacobian_spectrum")
    values = module.main(width=16, tokens=4)
    torch.manual_seed(0)
    block, x = module.Block(16), torch.randn(4, 16)
    dense = torch.autograd.functional.jacobian(block, x).reshape(64, 64)
    assert [value.value for value in values] == pytest.approx(torch.linalg.svdvals(dense)[:4].tolist(), rel=1e-3)


def test_every_example_is_tested() -> None:
    tested = set(re.findall(r'example\("(\w+)"\)', Path(__file__).read_text()))
    assert tested == {path.stem for path in EXAMPLES.glob("*.py")}
