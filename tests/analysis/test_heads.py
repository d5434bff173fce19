"""What a verdict on gradients owes to the head of a network: nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import dynstab
from dynstab.core.report import Report


def tanh_network(head: nn.Module | None, *, gain: float, depth: int = 24, width: int = 32) -> Report:
    """Weights of standard deviation gain / sqrt(N) and no biases, up to the head."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(depth):
        layer = nn.Linear(width, width, bias=False)
        nn.init.normal_(layer.weight, std=gain / width**0.5)
        layers += [layer, nn.Tanh()]
    model = nn.Sequential(*layers, *(() if head is None else (head,)))
    return dynstab.analyze(model, torch.randn(8, width))


@pytest.mark.parametrize("outputs", [32, 4], ids=["as wide as the layers", "narrower"])
def test_layers_that_shrink_the_gradient_are_blamed_whatever_the_head(outputs: int) -> None:
    """Each layer keeps a share 0.6: e^-12 over 24 of them, which the head's bias hides from the relative scale."""
    torch.manual_seed(1)
    report = tanh_network(nn.Linear(32, outputs), gain=0.6)
    (flag,) = (flag for flag in report.flags if flag.code == "DS102")
    assert (flag.severity, flag.evidence["threshold"]) == ("error", -7)
    # By raw gains the loss is spread over all layers: none of them is worth a first look, least of all the head.
    assert not any("first" in text for text in flag.advice)
    assert set(range(24)) <= set(flag.steps)
    assert "takes their place in 48 (Linear) (step 24)" in flag.message
    assert "It arises along the whole depth" in report.verdict.summary


@pytest.mark.parametrize("head", [None, nn.Linear(32, 4, bias=False)], ids=["no head", "a head without bias"])
def test_without_a_bias_signals_shrink_and_the_relative_gradient_keeps_its_size(head: nn.Module | None) -> None:
    codes = {flag.code for flag in tanh_network(head, gain=0.6).flags}
    assert "DS202" in codes
    assert "DS102" not in codes


def test_a_head_with_a_bias_is_no_trouble_to_healthy_layers() -> None:
    report = tanh_network(nn.Linear(32, 4), gain=1.3)
    assert not {"DS101", "DS102"} & {flag.code for flag in report.flags}


class Offset(nn.Module):
    """Adds a thousand, which the normalisation behind it takes away again: the gradient never notices."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1000.0


def test_a_constant_that_comes_and_goes_is_no_loss() -> None:
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(32, 32), nn.Tanh()) for _ in range(6)]
    model = nn.Sequential(*blocks[:3], Offset(), nn.LayerNorm(32), *blocks[3:]).double()
    report = dynstab.analyze(model, torch.randn(8, 32).double())
    assert not {"DS101", "DS102"} & {flag.code for flag in report.flags}
