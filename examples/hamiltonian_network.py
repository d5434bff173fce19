"""A Hamiltonian network keeps its gradients because its layers are symplectic. Does it still, after a change?

Three versions of one network: leapfrog layers, which are symplectic to rounding; the same field with both halves
updated at once (explicit Euler), which is not; and leapfrog with a damping slipped into one layer.

    python examples/hamiltonian_network.py
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

import dynstab


class HamiltonianNetwork(nn.Module):
    """Layers of y' = K^T tanh(K z), z' = -K^T tanh(K y) with step h."""

    def __init__(self, width: int, depth: int, *, euler: bool = False, damped: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weights = nn.ParameterList([nn.Parameter(torch.randn(width, width) / width**0.5) for _ in range(depth)])
        self.step, self.euler, self.damped = 0.5, euler, damped

    def forward(self, x: Tensor) -> Tensor:
        y, z = x.chunk(2, dim=-1)
        for layer, weight in enumerate(self.weights):
            new = y + self.step * torch.tanh(z @ weight.T) @ weight
            z = z - self.step * torch.tanh((y if self.euler else new) @ weight.T) @ weight
            y = new
            if layer == self.damped:
                z = z - 0.2 * torch.tanh(z)
        return torch.cat([y, z], dim=-1)


def main(*, width: int = 16, depth: int = 12, effort: Literal["standard", "thorough"] = "standard") -> dict[str, str]:
    networks = {
        "leapfrog": HamiltonianNetwork(width, depth),
        "explicit Euler": HamiltonianNetwork(width, depth, euler=True),
        "one damped layer": HamiltonianNetwork(width, depth, damped=depth // 2),
    }
    found = {}
    for name, network in networks.items():
        report = dynstab.analyze(network, torch.randn(8, 2 * width), config=dynstab.Config(effort=effort))
        structure = report.measurements.structure
        symplectic = structure.named("symplectic") if structure else None
        kept = f"{symplectic.kept} of {len(symplectic.steps)} steps symplectic" if symplectic else "no structure"
        flag = next((flag for flag in report.flags if flag.name == "broken-symplecticity"), None)
        found[name] = "kept" if flag is None and symplectic else "broken"
        print(f"{name:<17} {kept:<28} {flag.message if flag else ''}")
    return found


if __name__ == "__main__":
    main()
