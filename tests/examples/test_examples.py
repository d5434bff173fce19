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


def test_trajectories_in_one_run_show_the_onset_of_chaos_and_more_of_it_at_higher_energies() -> None:
    module = example("many_trajectories")
    onset, shares = module.main(steps=400, orbits=12, time=300.0)
    assert onset == pytest.approx(module.ONSET, abs=0.01)
    assert shares[0] < 0.2 < 0.7 < shares[2] and shares == sorted(shares)


def test_singular_values_of_a_block_meet_the_dense_ones() -> None:
    import torch

    module = example("jacobian_spectrum")
    values = module.main(width=16, tokens=4)
    torch.manual_seed(0)
    block, x = module.Block(16), torch.randn(4, 16)
    dense = torch.autograd.functional.jacobian(block, x).reshape(64, 64)
    assert [value.value for value in values] == pytest.approx(torch.linalg.svdvals(dense)[:4].tolist(), rel=1e-3)


def test_recurrent_networks_become_chaotic_as_their_gain_grows() -> None:
    exponents = example("recurrent_network").main(units=24, steps=120, gains=(0.5, 1.0, 4.0))
    assert exponents == sorted(exponents)
    assert exponents[1] < 0 < exponents[2]


def test_full_batch_training_settles_at_the_threshold_of_its_optimiser(capsys: pytest.CaptureFixture[str]) -> None:
    settled = example("edge_of_stability").main(steps=1000, every=50)
    assert settled["SGD"] == pytest.approx(2.0, rel=0.06)
    assert settled["Adam"] == pytest.approx(38.0, rel=0.06)
    assert "at the edge of stability" in capsys.readouterr().out


def test_a_pendulum_has_a_certified_push_and_an_energy_that_always_falls() -> None:
    push, violations = example("lyapunov_function").main(time=5.0, samples=16)
    assert 0.5 < push < math.pi
    assert violations == 0


def test_the_hamiltonian_network_that_lost_its_structure_is_told_from_the_one_that_kept_it() -> None:
    found = example("hamiltonian_network").main(width=4, depth=6)
    assert found == {"leapfrog": "kept", "explicit Euler": "broken", "one damped layer": "broken"}


def test_every_example_is_tested() -> None:
    texts = "".join(path.read_text() for path in Path(__file__).parents[1].rglob("test_*.py"))
    tested = set(re.findall(r'example\("(\w+)"', texts)) | set(re.findall(r'"(\w+)\.py"', texts))
    assert tested >= {path.stem for path in EXAMPLES.glob("*.py")}
