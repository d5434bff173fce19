"""A gate for continuous integration: no checkpoint passes whose gradients explode or vanish.

The command line does it in one line, and its exit code stops the pipeline:

    dynstab analyze checkpoint.pt --model model.py:make --fail-on error --format junit > stability.xml

This script makes two checkpoints of one architecture, one of them badly initialised, and runs
that line on both.

    python examples/gate_checkpoints.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

WIDTH = 64


def make(depth: int = 32) -> nn.Sequential:
    """The architecture: a plain tanh network."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(WIDTH, WIDTH), nn.Tanh()]
    return nn.Sequential(*layers)


def save_checkpoint(path: Path, gain: float) -> None:
    """Orthogonal weights times `gain`, and nothing but the weights in the file."""
    torch.manual_seed(0)
    model = make()
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight, gain=gain)
            nn.init.zeros_(layer.bias)
    torch.save(model.state_dict(), path)


def gate(path: Path, *options: str) -> int:
    """Exit code of `dynstab analyze`: 0 passes, 1 has findings, 2 could not be analysed."""
    command = [sys.executable, "-m", "dynstab", "analyze", str(path), "--model", f"{__file__}:make"]
    command += ["--input", f"randn:8,{WIDTH}", "--fail-on", "error", *options]
    return subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode


def main(*options: str) -> dict[str, int]:
    codes = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, gain in (("good", 1.0), ("bad", 3.0)):
            path = Path(folder, f"{name}.pt")
            save_checkpoint(path, gain)
            codes[name] = gate(path, *options)
            print(f"{name}: {'passes' if codes[name] == 0 else 'is stopped'} (exit code {codes[name]})")
    return codes


if __name__ == "__main__":
    main()
