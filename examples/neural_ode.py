"""A neural ODE that tells two rings apart, and which tolerance its adjoint gradient needs.

python examples/neural_ode.py
dynstab analyze examples/neural_ode.py:make

It needs torchdiffeq: pip install dynstab[ode].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchdiffeq import odeint, odeint_adjoint

import dynstab


class Field(nn.Module):
    """dx/dt = f(x), and one dimension more than the data has: rings that are nested cannot be parted in two."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 3))

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.net(x)


class NeuralODE(nn.Module):
    """The flow of the field over a unit of time, and a linear classifier."""

    def __init__(self, tolerance: float = 1e-4, *, adjoint: bool = False) -> None:
        super().__init__()
        self.field, self.head = Field(), nn.Linear(3, 1)
        self.tolerance, self.solver = tolerance, odeint_adjoint if adjoint else odeint

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.pad(x, (0, 1))
        times = torch.tensor([0.0, 1.0], dtype=x.dtype, device=x.device)
        end = self.solver(self.field, x, times, rtol=self.tolerance, atol=self.tolerance)[-1]
        return self.head(end).squeeze(-1)


def rings(count: int) -> tuple[Tensor, Tensor]:
    """Points on two rings of radius 1 and 2, and which ring they are on."""
    angle, label = 2 * torch.pi * torch.rand(count), (torch.arange(count) % 2).float()
    radius = 1 + label + 0.1 * torch.randn(count)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1), label


def trained(steps: int = 150) -> tuple[NeuralODE, float]:
    """A model and the share of its points that it tells right."""
    torch.manual_seed(0)
    model = NeuralODE()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    for _ in range(steps):
        x, label = rings(128)
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(model(x), label).backward()
        optimizer.step()
    with torch.no_grad():
        x, label = rings(512)
        return model, float(((model(x) > 0) == label.bool()).float().mean())


def make() -> tuple[nn.Module, Tensor]:
    """The trained model and its inputs, for the command line."""
    return trained()[0], rings(16)[0]


def main(steps: int = 150) -> list[float]:
    model, accuracy = trained(steps)
    print(f"{100 * accuracy:.0f} % of the points told right")
    x, gaps = rings(16)[0], []
    for tolerance in (1e-1, 1e-2, 1e-3, 1e-4):
        twin = NeuralODE(tolerance, adjoint=True)
        twin.load_state_dict(model.state_dict())
        flow = dynstab.analyze(twin, x, config=dynstab.Config(effort="quick")).measurements.flow
        assert flow is not None and flow.adjoint_gap.value is not None
        gaps.append(flow.adjoint_gap.value)
        off = 100 * (flow.solution_error.value or 0.0)
        print(f"tolerance {tolerance:.0e}: {flow.accepted} steps, {flow.evaluations} calls of the field")
        print(f"  off are the adjoint's gradient by {100 * gaps[-1]:.2g} %, the solution by {off:.2g} %")
    print(dynstab.analyze(model, x))
    return gaps


if __name__ == "__main__":
    main()
