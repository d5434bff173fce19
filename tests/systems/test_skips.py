"""Residual steps whose skip is not the bare identity, and boundaries that do not hang on a model's numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import dynstab
from dynstab.systems.depth import depth_system


class Factored(nn.Module):
    """s * x + f(x) with one factor for each channel."""

    def __init__(self, factors: Tensor) -> None:
        super().__init__()
        self.factors = nn.Parameter(factors)
        self.up, self.down = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.factors * x + self.down(torch.tanh(self.up(x)))


def _stack(factors: Tensor) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 6), *(Factored(factors.clone()) for _ in range(3)))


def test_a_factor_for_each_channel_is_a_residual_step_without_one_coefficient() -> None:
    steps = depth_system(_stack(torch.linspace(0.5, 1.5, 6)), (torch.randn(4, 6),)).trajectory.steps
    assert [step.kind for step in steps] == ["plain", "residual", "residual", "residual"]
    assert all(step.residual_coefficient is None for step in steps)


def test_equal_factors_are_one_coefficient() -> None:
    steps = depth_system(_stack(torch.full((6,), 0.75)), (torch.randn(4, 6),)).trajectory.steps
    assert [step.residual_coefficient for step in steps] == [None, 0.75, 0.75, 0.75]


def test_channels_that_the_skip_does_not_reach_make_a_step_plain() -> None:
    steps = depth_system(_stack(torch.tensor([0.0, 1, 1, 1, 1, 1])), (torch.randn(4, 6),)).trajectory.steps
    assert all(step.kind == "plain" for step in steps)


def test_what_needs_one_coefficient_is_left_out_where_there_are_several() -> None:
    model = _stack(torch.linspace(0.5, 1.5, 6))
    report = dynstab.analyze(model, torch.randn(4, 6), config=dynstab.Config(effort="quick", k=2))
    assert report.measurements.steps[1].update_ratio.value is None
    assert report.measurements.steps[1].rms_gain.value is not None


class Joined(nn.Module):
    """The scale of a norm in front of a sum with another stream: no skip of what is scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.branch, self.other = nn.Linear(6, 6), nn.Linear(6, 6)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 6))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * torch.tanh(self.branch(x)) + torch.tanh(self.other(x))


def test_a_scaled_branch_is_no_skip() -> None:
    system = depth_system(nn.Sequential(*(Joined() for _ in range(3))), (torch.randn(4, 6),), granularity="fine")
    assert all(step.kind != "residual" for step in system.trajectory.steps)


class PostNorm(nn.Module):
    """norm(x + f(x)) written out, its shift apart: a shift by zero where it is fresh."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 6), nn.Linear(6, 6)
        self.shift = nn.Parameter(torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        h = x + self.down(torch.tanh(self.up(x)))
        return h / h.square().mean(-1, keepdim=True).sqrt() + self.shift


def test_a_fresh_model_has_the_steps_of_a_trained_one() -> None:
    fresh = nn.Sequential(nn.Linear(6, 6), *(PostNorm() for _ in range(3)), nn.Linear(6, 6))
    x = torch.randn(4, 6)
    before = [step.name for step in depth_system(fresh, (x,)).trajectory.steps]
    for block in fresh:
        if isinstance(block, PostNorm):
            nn.init.normal_(block.shift)
    assert [step.name for step in depth_system(fresh, (x,)).trajectory.steps] == before
