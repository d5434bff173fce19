"""A neural CDE that tells which way a noisy spiral turns, and how its hidden state follows the path.

python examples/neural_cde.py

It needs torchcde: pip install dynstab[ode].
"""

from __future__ import annotations

import torch
import torchcde
from torch import Tensor, nn

import dynstab

HIDDEN, CHANNELS = 6, 3


class Field(nn.Module):
    """f in dz = f(z) dX, a matrix of hidden size times channels of the path."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(HIDDEN, 32), nn.Tanh(), nn.Linear(32, HIDDEN * CHANNELS), nn.Tanh())

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        return self.net(z).view(*z.shape[:-1], HIDDEN, CHANNELS)


class NeuralCDE(nn.Module):
    """The path's first point sets the state, the path drives it, its end decides."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.field, self.head = nn.Linear(CHANNELS, HIDDEN), Field(), nn.Linear(HIDDEN, 1)

    def forward(self, x: Tensor) -> Tensor:
        path = torchcde.CubicSpline(torchcde.hermite_cubic_coefficients_with_backward_differences(x))
        z = torchcde.cdeint(
            X=path,
            func=self.field,
            z0=self.start(path.evaluate(path.interval[0])),
            t=path.interval,
            adjoint=False,
            method="rk4",
            options={"step_size": 1.0},
        )
        assert isinstance(z, Tensor)
        return self.head(z[:, -1]).squeeze(-1)


def spirals(count: int, length: int = 12) -> tuple[Tensor, Tensor]:
    """Paths (count, length, 3) of time and a point in the plane, and whether they turn left."""
    time = torch.linspace(0, 1, length).expand(count, length)
    left = torch.arange(count) % 2 == 0
    angle = 4 * time * torch.where(left, 1.0, -1.0)[:, None] + 6.3 * torch.rand(count, 1)
    x, y = time * angle.cos(), time * angle.sin()
    noise = 0.02 * torch.randn(2, count, length)
    return torch.stack([time, x + noise[0], y + noise[1]], dim=2), left.float()


def trained(steps: int = 60) -> tuple[NeuralCDE, float]:
    """A model and the share of the paths that it tells right."""
    torch.manual_seed(0)
    model = NeuralCDE()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    for _ in range(steps):
        x, label = spirals(64)
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(model(x), label).backward()
        optimizer.step()
    with torch.no_grad():
        x, label = spirals(256)
        return model, float(((model(x) > 0) == label.bool()).float().mean())


def make() -> tuple[nn.Module, Tensor]:
    """The trained model and its inputs, for the command line."""
    return trained()[0], spirals(8)[0]


def main(steps: int = 60, config: dynstab.Config | None = None) -> tuple[float, dynstab.Report]:
    model, accuracy = trained(steps)
    print(f"{100 * accuracy:.0f} % of the spirals told right")
    report = dynstab.analyze(model, spirals(8)[0], config=config)
    print(report)
    return accuracy, report


if __name__ == "__main__":
    main()
