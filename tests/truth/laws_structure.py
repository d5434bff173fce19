"""Laws of structure: symplectic and reversible networks, Lyapunov functions, networks that sample a flow."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from truth import F64, Row, law, number, seeded

import dynstab


class Layers(nn.Module):
    """Half-updates of a pair, in turn (leapfrog) or both from the old state (Euler)."""

    def __init__(self, *, step: float, euler: bool = False, gradient: bool = True) -> None:
        super().__init__()
        self.weights = nn.ParameterList([nn.Parameter(torch.randn(6, 6, generator=seeded(i))) for i in range(8)])
        self.step, self.euler, self.gradient = step, euler, gradient

    def force(self, weight: Tensor, x: Tensor) -> Tensor:
        """The gradient of sum ln cosh(K x), or, without the last factor, no gradient of anything."""
        slope = self.step * torch.tanh(x @ weight.T)
        return slope @ weight if self.gradient else slope

    def forward(self, x: Tensor) -> Tensor:
        y, z = x.chunk(2, dim=-1)
        for weight in self.weights:
            new = y + self.force(weight, z)
            z = z - self.force(weight, y if self.euler else new)
            y = new
        return torch.cat([y, z], dim=-1)


def structure_of(model: nn.Module, size: int = 12) -> dynstab.core.structure.Structure:
    x = torch.randn(4, size, generator=seeded(1), dtype=F64)
    structure = dynstab.analyze(model.double(), x, config=dynstab.Config(k=2)).measurements.structure
    assert structure is not None
    return structure


def largest(structure: dynstab.core.structure.Structure, name: str) -> tuple[float, float]:
    found = structure.named(name)  # type: ignore[arg-type]
    assert found is not None
    return max(number(step.defect) for step in found.steps)


@law
def symplectic_networks() -> Iterator[Row]:
    kept = structure_of(Layers(step=0.1))
    value, error = largest(kept, "symplectic")
    yield Row("leapfrog network", "symplectic defect", value, 0.0, error, "Hairer, Lubich & Wanner 2006")
    value, error = number(kept.pairing)
    yield Row("leapfrog network", "pairing of the exponents", value, 0.0, error, "reciprocal singular values")
    coarse, fine = (largest(structure_of(Layers(step=h, euler=True)), "symplectic")[0] for h in (0.02, 0.01))
    yield Row("explicit Euler of a Hamiltonian", "order of the symplectic defect", math.log2(coarse / fine), 2.0, 0.1,
              "J^T W J - W = h^2 A^T W A")  # fmt: skip
    reversible = structure_of(Layers(step=0.5, gradient=False))
    value, error = largest(reversible, "volume-preserving")
    yield Row("additive couplings", "ln |det| of a step", value, 0.0, error, "Dinh et al. 2015, Gomez et al. 2017")
    value, error = number(reversible.reconstruction)
    yield Row("additive couplings", "error of running back", value, 0.0, 1e-9, "exact inverse, rounding apart")


@law
def lyapunov_functions() -> Iterator[Row]:
    def oscillator(t: float, x: Tensor) -> Tensor:
        return torch.stack([x[1], -x[0] - 0.5 * x[1]])

    found = dynstab.lyapunov_function(oscillator, torch.zeros(2, dtype=F64), time=5.0, dt=0.05)
    assert found.P is not None
    for i, j, expected in ((0, 0, 2.25), (0, 1, 0.5), (1, 1, 2.0)):
        yield Row("damped oscillator, c = 1/2", f"P[{i}, {j}]", float(found.P[i, j]), expected, 1e-12, "by hand")
    found = dynstab.lyapunov_function(lambda t, x: -x + x**3, torch.tensor([0.1], dtype=F64), time=4.0, dt=0.02)
    yield Row("x' = -x + x^3", "level of the region", number(found.level)[0], 0.5, 1e-9, "|x| < 1, V = x^2/2")


@law
def networks_as_flows() -> Iterator[Row]:
    class Tied(nn.Module):
        def __init__(self, depth: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(6, 6, generator=seeded(2), dtype=F64) / 6**0.5)
            self.depth = depth

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(self.depth):
                x = x + torch.tanh(x @ self.weight.T) / self.depth
            return x

    x = torch.randn(8, 6, generator=seeded(3), dtype=F64)
    drifts, changes = [], []
    for depth in (32, 64):
        flow = dynstab.analyze(Tied(depth), x, config=dynstab.Config(k=2)).measurements.network_flow
        assert flow is not None
        drifts.append(number(flow.hamiltonian_drift)[0])
        midpoint = next(each for each in flow.integrators if each.name == "midpoint")
        changes.append(number(midpoint.state_change)[0])
    yield Row("tied residual stack", "order of the midpoint rule's change", math.log2(changes[0] / changes[1]), 1.0,
              0.05, "Euler's error")  # fmt: skip
    yield Row("tied residual stack", "order of the control Hamiltonian's drift", math.log2(drifts[0] / drifts[1]), 1.0,
              0.1, "constant along the flow (Pontryagin)")  # fmt: skip
