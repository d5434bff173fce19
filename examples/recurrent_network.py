"""How far back does a recurrent network learn? Exponents and memory of networks driven by real sequences.

Rows of handwritten digits, one after another, drive a tanh network whose recurrent weights have gain g. Small
gains forget within a few steps; beyond the edge, where the leading exponent passes zero, the network is chaotic and
gradients explode. Long memory lies near the edge.

python examples/recurrent_network.py
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import dynstab
from dynstab.core.estimate import Estimate

GAINS = (0.5, 1.0, 1.5, 2.0, 3.0)


def rows_of_digits(steps: int, sequences: int) -> Tensor:
    """(steps, sequences, 8): each step is one row of eight pixels, images one after another."""
    images, _ = load_digits(return_X_y=True)
    rows = torch.as_tensor(images, dtype=torch.float32).reshape(-1, 8) / 16 - 0.3
    return rows[: steps * sequences].reshape(sequences, steps, 8).transpose(0, 1)


def network(units: int, gain: float) -> nn.RNN:
    """A tanh network with Gaussian recurrent weights of variance gain^2 / units."""
    torch.manual_seed(0)
    layer = nn.RNN(8, units)
    with torch.no_grad():
        layer.all_weights[0][1].copy_(gain * torch.randn(units, units) / units**0.5)
    return layer


def shown(estimate: Estimate, digits: int = 1) -> str:
    return "-" if estimate.value is None else f"{estimate.value:.{digits}f}"


def main(*, units: int = 64, steps: int = 600, gains: tuple[float, ...] = GAINS) -> list[float]:
    """The leading exponent of each gain."""
    sequence, found = rows_of_digits(steps, 4), []
    print(" gain  leading exponent    half-life  reach  dimension  findings")
    for gain in gains:
        report = dynstab.analyze(network(units, gain), sequence, config=dynstab.Config(system="time", k=4))
        exponents, time = report.measurements.lyapunov, report.measurements.time
        assert time is not None
        leading = exponents.qr[0]
        found.append(leading.value or 0.0)
        print(
            f"{gain:5.1f}  {leading.value:+.4f} +- {leading.error:.4f}  {shown(time.half_life):>9}  "
            f"{shown(time.reach, 0):>5}  {shown(exponents.kaplan_yorke_dimension):>9}  "
            f"{', '.join(flag.name for flag in report.flags if flag.severity != 'info')}"
        )
    return found


if __name__ == "__main__":
    main()
