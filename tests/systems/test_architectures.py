"""Architectures of many kinds by the rules of the coverage run, and what that run once found wrong."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from architectures import Architecture, build
from declared import declared
from torch import Tensor, nn

import dynstab
from dynstab.systems.depth import depth_system
from dynstab.systems.describe import system_info

# Family -> updates in each block on the chain; None where the blocks differ by design.
KINDS = {
    "albert": None,  # one block, shared
    "bart": None,  # encoder, then decoder by cross-attention
    "blip": 2,  # two towers
    "convnext": 1,  # stages of convolutions
    "deberta-v2": 2,  # disentangled attention
    "deepseek_v3": 2,  # latent attention, mixture of experts
    "doge": 2,  # a learned skip factor for each channel
    "falcon": 1,  # attention and MLP in parallel
    "fnet": 2,  # Fourier mixing
    "gpt_oss": 2,  # attention sinks, experts
    "jetmoe": 2,  # routers with near ties
    "mamba2": 1,  # state space
    "mobilebert": 1,  # bottlenecks, norms that are scales
    "patchtst": 2,  # time series
    "pixtral": 2,  # vision with rotary positions
    "qwen2_5_vl_vision": 2,  # packed patches
    "reformer": 2,  # reversible, in one custom Function
    "switch_transformers": None,  # experts looked up by tensors, written into in place
    "whisper": None,  # audio, encoder and decoder
}


@pytest.mark.parametrize("family", KINDS)
def test_a_small_model_of_every_kind_is_captured_with_all_checks_true(family: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the models' own
        built = build(Architecture(family=family, task="MODEL_MAPPING"), samples=2)
        system = depth_system(built.module, built.inputs.args, built.inputs.kwargs)
    assert len(system.checks) == 6 and all(check.passed for check in system.checks)
    steps = system_info(system.trajectory, ()).steps
    found = declared(built.module, built.module.config, steps, built.inputs)  # type: ignore[arg-type]
    assert not found.broken
    expected = KINDS[family]
    assert expected is None or (found.blocks >= 2 and found.updates == expected * found.blocks)


class Unit(nn.Module):
    """x + f(x) with two products."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.tanh(self.up(x)))


class LongSkip(nn.Module):
    """One skip around all blocks."""

    def __init__(self, width: int = 6, blocks: int = 6) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Unit(width) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(x)
        for block in self.blocks:
            h = block(h)
        return x + h


def test_a_skip_around_all_blocks_does_not_make_them_one_step() -> None:
    trajectory = depth_system(LongSkip(), (torch.randn(3, 6),)).trajectory
    names = [step.name for step in trajectory.steps]
    assert all(any(f"blocks.{i}" in name for name in names) for i in range(6))
    assert sum(step.kind == "residual" for step in trajectory.steps) >= 5


class Gated(nn.Module):
    """Each input has its own gate: with one input, a number."""

    def __init__(self, width: int = 600) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.full((x.shape[0], 1), 0.5)
        x = self.first(x)
        for layer in (self.second, self.third):
            branch = x
            for _ in range(10):
                branch = torch.tanh(layer(branch))
            x = x * gate + branch
        return x


def test_a_single_input_that_looks_simpler_does_not_stand_for_all() -> None:
    report = dynstab.analyze(Gated(), torch.randn(2, 600), config=dynstab.Config(effort="quick", k=2))
    assert len(report.measurements.steps) == len(report.system.steps) > 0
    assert all(check.passed for check in report.verification)


class Vanishing(nn.Module):
    """Shrinks its signal by bare matrices; only the smallest states enter or leave a module."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList(1e-3 * torch.randn(5, 5) for _ in range(6))
        self.head = nn.Linear(5, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        for weight in self.weights:
            x = torch.tanh(x @ weight)
        return torch.tanh(self.head(x))


def test_states_that_have_vanished_are_told_apart() -> None:
    checks = depth_system(Vanishing(), (torch.randn(3, 5),)).checks
    assert all(check.passed for check in checks)


class Frozen(nn.Module):
    """Long frozen preprocessing without gradients, then blocks that learn."""

    def __init__(self) -> None:
        super().__init__()
        self.codec = nn.ModuleList(nn.Linear(4, 4) for _ in range(5))
        self.layers = nn.ModuleList(Unit(4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            for layer in self.codec:
                x = layer(x)
        for block in self.layers:
            x = block(x)
        return x


def test_blocks_that_run_without_gradients_are_no_chain() -> None:
    system = depth_system(Frozen(), (torch.randn(3, 4),))
    assert [(step.block, step.kind) for step in system.trajectory.steps] == [
        (f"layers.{i}", "residual") for i in range(3)
    ]
    assert all(check.passed for check in system.checks)
    assert any("begins behind that point" in note for note in system.trajectory.notes)


class Overwriting(nn.Module):
    """Overwrites what the backward of exp needs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        grown = self.inner(x).exp()
        result: Any = grown * 1.0
        grown.mul_(2.0)
        return result


def test_a_model_that_autograd_refuses_is_compared_through_the_ops_of_its_graph_and_says_so() -> None:
    system = depth_system(Overwriting(), (torch.randn(3, 4),))
    check = next(check for check in system.checks if check.check == "product of the steps equals autograd")
    assert check.passed and check.error is not None and check.error < 1e-6
    assert check.detail.startswith("autograd refuses the model itself (RuntimeError")


class Empty(nn.Module):
    """Splits off a part of width zero, as attention without positions does."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        most, none = self.inner(x).split([4, 0], dim=-1)
        return torch.cat([torch.tanh(most), none.reshape(x.shape[0], 1, 0).flatten(1)], -1)


def test_empty_tensors_on_the_way_are_linearised() -> None:
    assert all(check.passed for check in depth_system(Empty(), (torch.randn(3, 4),)).checks)
