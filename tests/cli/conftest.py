"""Files to analyze, and two ways to run the command line: in this process and in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dynstab.cli import app

WIDTH = 32
QUICK = ("--effort", "quick", "-k", "2", "--input", f"randn:8,{WIDTH}")


@pytest.fixture
def dynstab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="dynstab")

    return run


@pytest.fixture
def process(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line in a process of its own, in an empty folder."""

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "dynstab", *map(str, arguments)],
            cwd=tmp_path,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Plain networks in files: `stable` (orthogonal weights), `exploding` (tanh, gain 3), `nan`, `weights`."""
    import torch
    from torch import nn

    def plain(gain: float, activation: type[nn.Module], depth: int) -> nn.Sequential:
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for _ in range(depth):
            linear = nn.Linear(WIDTH, WIDTH)
            nn.init.orthogonal_(linear.weight, gain=gain)
            nn.init.zeros_(linear.bias)
            layers += [linear, activation()]
        return nn.Sequential(*layers)

    folder = tmp_path_factory.mktemp("models")
    stable = plain(1.0, nn.Identity, 4)
    exploding = plain(3.0, nn.Tanh, 32)
    poisoned = plain(1.0, nn.Tanh, 4)
    with torch.no_grad():
        next(poisoned.parameters())[0, 0] = float("nan")
    files = {"stable": stable, "exploding": exploding, "nan": poisoned, "weights": stable.state_dict()}
    for name, content in files.items():
        torch.save(content, folder / f"{name}.pt")
    return {name: folder / f"{name}.pt" for name in files}


@pytest.fixture(scope="session")
def exploding_report(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """report.json of the exploding network."""
    path = tmp_path_factory.mktemp("report") / "exploding.json"
    result = CliRunner().invoke(app, ["analyze", str(models["exploding"]), *QUICK, "--json", str(path)])
    assert result.exit_code == 0, result.output
    return path
