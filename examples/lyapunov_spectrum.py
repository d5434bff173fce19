"""Lyapunov spectra of maps with a known answer: the Henon map, and a random recurrent network.

python examples/lyapunov_spectrum.py
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

import dynstab

HENON = (0.41922, -1.62319)
RNN_LEADING = 0.154724  # g = 2, in the limit of many units


def henon(state: Tensor) -> Tensor:
    x, y = state[0], state[1]
    return torch.stack([1 - 1.4 * x * x + y, 0.3 * x])


def random_rnn(units: int, gain: float) -> tuple[torch.nn.Module, Tensor]:
    """h -> W tanh(h), entries of W with variance gain^2 / units, and a start."""

    class Step(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(gain / math.sqrt(units) * torch.randn(units, units, dtype=torch.float64))

        def forward(self, state: Tensor) -> Tensor:
            return self.weight @ torch.tanh(state)

    torch.manual_seed(0)
    return Step(), torch.randn(units, dtype=torch.float64)


def main(*, henon_steps: int = 20_000, units: int = 200, rnn_steps: int = 1_000) -> tuple[Tensor, Tensor]:
    spectrum = dynstab.lyapunov_spectrum(
        henon, torch.tensor([0.1, 0.1], dtype=torch.float64), steps=henon_steps, discard=100
    )
    print(f"Henon: {spectrum.qr[0]:+.5f} {spectrum.qr[1]:+.5f} nat per step; known: {HENON[0]:+.5f} {HENON[1]:+.5f}")
    print(f"       their sum {spectrum.qr.sum():+.6f}; ln 0.3 = {math.log(0.3):+.6f}")

    step, start = random_rnn(units, gain=2.0)
    leading = dynstab.lyapunov_spectrum(step, start, steps=rnn_steps, k=8, discard=200)
    print(f"RNN with {units} units, g = 2: {leading.qr[0]:+.4f}; limit of many units: {RNN_LEADING:+.4f}")
    return spectrum.qr, leading.qr


if __name__ == "__main__":
    main()
