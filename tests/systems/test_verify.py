"""The checks tell a network that ignores its input from a trace that does."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dynstab.systems.depth import DepthSystem, depth_system


def _detail(system: DepthSystem) -> str:
    return next(check.detail for check in system.checks if check.check == "output depends on the source")


def test_a_signal_that_fades_below_rounding_still_passes_step_by_step() -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(6, 6, bias=False) for _ in range(40)]
    for layer in layers:
        nn.init.normal_(layer.weight, std=1e-3)
    system = depth_system(nn.Sequential(*layers), (torch.randn(3, 6),))
    assert float(system.trajectory.states[-1].value[0].abs().max()) == 0.0
    assert all(check.passed for check in system.checks)
    assert "every step moves" in _detail(system)


class Scaled(nn.Module):
    """A head that starts from a scale of zero."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.scale = nn.Linear(5, 5), nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.body(x)) * self.scale


def test_a_weight_of_zero_is_told_from_a_trace_that_lost_its_input() -> None:
    system = depth_system(Scaled(), (torch.randn(3, 5),))
    assert all(check.passed for check in system.checks)
    assert "the output rests" in _detail(system)


class Constant(nn.Module):
    """Returns its input times an exact zero that is no parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.body(x)) * 0.0


def test_a_network_that_ignores_its_input_fails_the_check() -> None:
    system = depth_system(Constant(), (torch.randn(3, 5),))
    failed = [check.check for check in system.checks if not check.passed]
    assert failed == ["output depends on the source"]
    assert "rest" in _detail(system)


def test_dead_units_are_told_from_a_trace_that_lost_its_input() -> None:
    model = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5))
    with torch.no_grad():
        model[2].bias.fill_(-50.0)
    system = depth_system(model, (torch.randn(3, 5),))
    assert all(check.passed for check in system.checks)
    assert "dead units" in _detail(system)
