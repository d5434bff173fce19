"""Which residual stacks sample a flow: by the order of refinement inside their norms, and by how weights change."""

from __future__ import annotations

from math import cos, pi, sin

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import dynstab
from dynstab.core.report import Report

_LAST = {
    "plain": lambda block, x, f: x + f(x),
    "pre-norm": lambda block, x, f: x + f(block.norm(x)),
    "post-norm": lambda block, x, f: block.norm(x + f(x)),
    "post-activation": lambda block, x, f: torch.relu(x + f(x)),
    "squashed": lambda block, x, f: functional.gelu(x + f(x)),
}


class Block(nn.Module):
    def __init__(self, kind: str, step: float, size: int = 24) -> None:
        super().__init__()
        self.kind, self.step = kind, step
        self.inner, self.outer = nn.Linear(size, 2 * size), nn.Linear(2 * size, size)
        self.norm = nn.LayerNorm(size)
        for layer in (self.inner, self.outer):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        return _LAST[self.kind](self, x, lambda h: self.step * self.outer(torch.tanh(self.inner(h))))


def stack(kind: str, weights: str, *, step: float = 1 / 16, count: int = 16, seed: int = 0) -> nn.Module:
    """`count` blocks with the same weights, weights that turn by a quarter over the depth, or each with its own."""
    torch.manual_seed(seed)
    one, two = Block(kind, step), Block(kind, step)
    blocks = [Block(kind, step) for _ in range(count)]
    for index, block in enumerate(blocks) if weights != "independent" else ():
        angle = pi / 2 * index / count if weights == "smooth" else 0.0
        block.load_state_dict(one.state_dict())
        for name in ("inner", "outer"):
            a, b = getattr(one, name).weight, getattr(two, name).weight
            getattr(block, name).weight.data = (cos(angle) * a + sin(angle) * b).detach()
    return nn.Sequential(*blocks)


def report_of(model: nn.Module, **options: object) -> Report:
    x = torch.randn(8, 24, generator=torch.Generator().manual_seed(1)).relu()
    return dynstab.analyze(model, x, config=dynstab.Config.model_validate({"effort": "quick", "k": 2, **options}))


def codes(report: Report) -> set[str]:
    return {flag.code for flag in report.flags}


@pytest.mark.parametrize("weights", ["tied", "smooth"])
@pytest.mark.parametrize("kind", ["plain", "pre-norm", "post-norm", "post-activation"])
def test_small_steps_of_slow_weights_sample_a_flow_inside_whatever_ends_the_block(kind: str, weights: str) -> None:
    report = report_of(stack(kind, weights))
    assert report.measurements.network.refinement_order.value == pytest.approx(1.0, abs=0.1)
    assert "DS503" not in codes(report)


@pytest.mark.parametrize("step", [1 / 16, 1.0])
@pytest.mark.parametrize("kind", ["plain", "pre-norm", "post-norm", "post-activation"])
def test_independent_weights_never_sample_a_flow(kind: str, step: float) -> None:
    for seed in range(2):
        found = codes(report_of(stack(kind, "independent", step=step, seed=seed), effort="standard"))
        assert "DS503" in found and "DS311" not in found


def test_an_activation_on_the_stream_that_is_no_projection_has_no_limit_of_small_steps() -> None:
    report = report_of(stack("squashed", "tied"))
    assert report.measurements.network.refinement_order.value < 0.5
    assert "DS503" in codes(report)


def test_stacks_that_blow_up_at_coarser_steps_have_no_order() -> None:
    class Decay(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(-0.9 * torch.eye(24))

        def forward(self, x: Tensor) -> Tensor:
            return x + x @ self.weight  # 1 - 0.9, 1 - 1.8 and 1 - 3.6

    report = report_of(nn.Sequential(*[Decay() for _ in range(16)]), effort="standard")
    order = report.measurements.network.refinement_order
    assert order.value is None and "blow up" in order.outcome
    assert not {"DS503", "DS311"} & codes(report)


def test_gains_of_norms_do_not_hide_that_weights_are_independent() -> None:
    model = stack("pre-norm", "independent")
    for block in model.children():
        block.norm.weight.data.fill_(30.0)  # beside which the matrices are small
    smoothness = report_of(model).measurements.network.depth_smoothness.value
    assert smoothness == pytest.approx(16 * 2**0.5, rel=0.05)


@pytest.mark.parametrize("bias", [0.0, 0.1])
def test_weights_that_are_computed_are_not_judged_by_the_biases_beside_them(bias: float) -> None:
    class Antisymmetric(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.randn(24, 24)), nn.Parameter(torch.full((24,), bias))

        def forward(self, x: Tensor) -> Tensor:
            return x + 0.02 * torch.tanh(x @ (self.weight - self.weight.T) + self.bias)

    torch.manual_seed(0)
    report = report_of(nn.Sequential(*[Antisymmetric() for _ in range(12)]), effort="standard")
    smoothness = report.measurements.network.depth_smoothness
    assert smoothness.value is None and "parameter itself" in smoothness.outcome
    assert all("0 %" not in flag.message and " = 1 " not in flag.message for flag in report.flags)
    assert {"DS302", "DS503"} <= codes(report)


def test_zero_weights_have_no_relative_change() -> None:
    model = stack("plain", "tied")
    for parameter in model.parameters():
        parameter.data.zero_()
    smoothness = report_of(model).measurements.network.depth_smoothness
    assert smoothness.value is None and smoothness.outcome == "the weights of a block are all zero"


def test_blocks_with_their_own_biases_are_not_tied() -> None:
    model = stack("plain", "tied")
    assert report_of(model).measurements.network_flow.hamiltonian_drift.measured
    for index, block in enumerate(model.children()):
        block.inner.bias.data.fill_(0.1 * index)
    drift = report_of(model).measurements.network_flow.hamiltonian_drift
    assert "not tied" in drift.outcome
