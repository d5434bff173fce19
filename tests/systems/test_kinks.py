"""Where activations have kinks, read off captured networks."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from dynstab.systems.depth import depth_system
from dynstab.systems.trajectory import Activation

KINKED = [
    (nn.ReLU(), (0.0,), True),
    (nn.ReLU(inplace=True), (0.0,), True),
    (nn.ReLU6(), (0.0, 6.0), True),
    (nn.LeakyReLU(), (0.0,), False),
    (nn.PReLU(), (0.0,), False),
    (nn.Hardtanh(), (-1.0, 1.0), False),
    (nn.Hardtanh(0.0, 2.0), (0.0, 2.0), True),
    (nn.Hardswish(), (-3.0, 3.0), False),
    (nn.Hardsigmoid(), (-3.0, 3.0), False),
    (nn.Softshrink(0.3), (-0.3, 0.3), False),
    (nn.Threshold(0.5, 0.0), (0.5,), True),
    (nn.SELU(), (0.0,), False),
]


def activations(layer: nn.Module) -> tuple[Activation, ...]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 4), layer, nn.Linear(4, 4))
    trajectory = depth_system(network, (torch.randn(3, 4),)).trajectory
    return tuple(found for step in trajectory.steps for found in step.activations)


@pytest.mark.parametrize(("layer", "kinks", "rectifier"), KINKED, ids=lambda value: str(value))
def test_kinks_are_those_of_the_layer_as_it_is_configured(layer, kinks, rectifier):
    (found,) = activations(layer)
    assert found.kinks == pytest.approx(kinks)
    assert found.rectifier is rectifier
    assert found.input.shape == found.output.shape == (3, 4)


@pytest.mark.parametrize("layer", [nn.GELU(), nn.Tanh(), nn.SiLU(), nn.ELU(), nn.CELU(2.0), nn.Softplus()])
def test_smooth_activations_have_none(layer):
    assert activations(layer) == ()


@pytest.mark.parametrize(("layer", "kinks", "rectifier"), KINKED, ids=lambda value: str(value))
def test_the_derivative_jumps_at_every_kink(layer, kinks, rectifier):
    around = torch.tensor(kinks, dtype=torch.float64)[:, None] + torch.tensor([-1e-6, 1e-6], dtype=torch.float64)
    x = around.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(deepcopy(layer).double()(x.clone()).sum(), x)
    assert bool((slopes[:, 0] - slopes[:, 1]).abs().gt(1e-3).all())
