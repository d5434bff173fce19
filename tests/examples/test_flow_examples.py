"""The examples on differential equations run, and find what they promise, at a small size."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from dynstab.core.config import Config

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"flow_example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_adjoints_gradient_of_a_neural_ode_nears_the_solvers_as_the_tolerance_falls():
    pytest.importorskip("torchdiffeq", reason="neural ODEs are torchdiffeq's")
    gaps = example("neural_ode").main(steps=40)
    assert gaps[0] > 4 * gaps[-1] and gaps[-1] < 0.05


def test_a_neural_cde_is_read_along_its_path():
    pytest.importorskip("torchcde", reason="neural CDEs are torchcde's")
    accuracy, report = example("neural_cde").main(steps=30, config=Config(effort="quick"))
    assert accuracy > 0.8
    assert report.system.kind == "flow" and len(report.system.steps) == 11
    assert all(check.passed for check in report.verification)
