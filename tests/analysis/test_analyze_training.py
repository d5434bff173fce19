"""A report on a training run."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from dynstab import analyze_training
from dynstab.core.config import Config
from dynstab.core.errors import ConfigError
from dynstab.core.report import Report

X, Y = torch.randn(32, 6, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 3


def loss(model: nn.Module) -> Tensor:
    return nn.functional.cross_entropy(model(X), Y)


def trained(make: type[Optimizer], **options: float) -> tuple[nn.Module, Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.1), nn.Linear(8, 3))
    optimizer = make(model.parameters(), **options)  # type: ignore[call-arg]
    for _ in range(5):
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()
    return model, optimizer


@pytest.mark.parametrize(("make", "options"), [(SGD, {"lr": 0.1, "momentum": 0.9}), (AdamW, {"lr": 1e-3})])
def test_a_training_run_becomes_a_report_that_is_verified(
    make: type[Optimizer], options: dict[str, float], tmp_path: Path
) -> None:
    model, optimizer = trained(make, **options)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = analyze_training(model, loss, optimizer, steps=4, config=Config(k=2, effort="quick"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(check.passed for check in report.verification), report.verification
    assert (report.system.kind, len(report.system.steps)) == ("training", 4)
    assert len(report.measurements.lyapunov.qr) == 2
    assert report.measurements.training is not None
    assert len(report.measurements.training.eigenvalues) == 2
    report.save(tmp_path / "r.json")
    assert Report.load(tmp_path / "r.json").measurements.training == report.measurements.training
    page = str(report)
    assert "Training" in page
    assert "sharpness / threshold" in page
    report.to_html(tmp_path / "r.html")
    assert "threshold of the optimiser" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_a_rate_beyond_the_edge_shows_as_a_positive_exponent() -> None:
    expanding = {}
    for rate in (0.05, 20.0):
        model, optimizer = trained(SGD, lr=0.05)
        optimizer.param_groups[0]["lr"] = rate
        report = analyze_training(model.eval(), loss, optimizer, steps=1, config=Config(k=1, effort="quick"))
        assert report.measurements.training is not None
        expanding[report.measurements.training.stands] = report.measurements.lyapunov.finite_time[0].value
    assert set(expanding) == {"stable", "beyond"}
    assert expanding["beyond"] > 0.5 > expanding["stable"]


def settled(make: type[Optimizer], steps: int, **options: float) -> tuple[nn.Module, Optimizer]:
    """A network of three layers after some steps, in eval mode, so that the loss is one function."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    optimizer = make(model.parameters(), **options)  # type: ignore[call-arg]
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()
    return model, optimizer


@pytest.mark.parametrize("make", [Adam, AdamW])
@pytest.mark.parametrize("steps", [1, 100])
def test_a_healthy_run_of_adam_is_stable_whatever_the_size_of_its_second_moments(
    make: type[Optimizer], steps: int
) -> None:
    report = analyze_training(*_with_loss(*settled(make, steps, lr=1e-3)))
    assert (report.verdict.kind, report.flags) == ("stable", ())
    training, gain = report.measurements.training, report.measurements.network.log_gradient_gain.value
    assert training is not None and training.stands == "stable"
    assert gain is not None and abs(gain) < 3
    assert max(step.largest_singular_value.value or 0 for step in report.measurements.steps) < 10
    assert "do not overshoot" in report.verdict.summary


def test_a_run_beyond_the_edge_gets_advice_for_a_learning_rate_and_none_for_layers() -> None:
    model, optimizer = settled(SGD, 50, lr=0.05)
    optimizer.param_groups[0]["lr"] = 20.0
    report = analyze_training(model, loss, optimizer, steps=1)
    assert report.verdict.kind == "exploding"
    assert [flag.code for flag in report.flags] == ["DS711"]
    assert "learning rate" in report.flags[0].advice[0]
    assert not any("layer" in text or "skip" in text for flag in report.flags for text in flag.advice)


class Wall(nn.Module):
    """log cosh: curvature 1 at the bottom, none up the walls, so that a long step lands where it is flat."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([0.3, 0.2]))


def test_gradient_descent_that_is_thrown_back_from_its_edge_is_not_called_exploding() -> None:
    """Rate 2.6 where 2 is the edge: both weights grow to where 2.6 / cosh(theta)^2 is 2 or less, and stay bounded."""
    model = Wall()
    optimizer = SGD(model.parameters(), lr=2.6)
    report = analyze_training(model, lambda m: m.theta.cosh().log().sum(), optimizer, steps=40)  # type: ignore[attr-defined]
    assert report.measurements.training is not None and report.measurements.training.stands == "beyond"
    assert report.verdict.kind == "inconclusive"
    assert "seems to come back by itself" in report.verdict.summary


def test_the_first_updates_of_adam_are_not_called_exploding_for_second_moments_that_are_tiny() -> None:
    """A unit of the hidden layer has seen nothing yet: eps stands for its second moment, 1e8 for its rate."""
    model, optimizer = settled(Adam, 3, lr=1e-2)
    state = optimizer.state[next(model.parameters())]
    state["exp_avg"][0], state["exp_avg_sq"][0] = 0.0, 0.0
    report = analyze_training(model, loss, optimizer)
    training = report.measurements.training
    assert training is not None and training.stands == "beyond"
    assert report.verdict.kind == "inconclusive"
    assert "second moment is still tiny" in report.verdict.summary
    assert [(flag.code, flag.severity) for flag in report.flags] == [("DS711", "warning")]


def test_the_page_claims_nothing_of_negative_curvature() -> None:
    """(w0^2 - w1^2) / 2 at rate 0.1: the sharpness is far below the threshold, and w1 grows at every update."""
    model = nn.Linear(2, 1, bias=False)
    saddle = lambda module: (module.weight * module.weight * torch.tensor([0.5, -0.5])).sum()  # noqa: E731
    report = analyze_training(model, saddle, SGD(model.parameters(), lr=0.1), config=Config(k=2))
    assert report.measurements.lyapunov.finite_time[0].value == pytest.approx(math.log(1.1), abs=1e-6)
    page = " ".join(str(report).split())
    assert "no direction overshoots" in page
    assert "die out" not in page


def _with_loss(model: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Callable[[nn.Module], Tensor], Optimizer]:
    return model, loss, optimizer


def test_an_optimiser_that_is_not_read_gets_a_sentence() -> None:
    model, _ = trained(SGD, lr=0.1)
    with pytest.raises(ConfigError, match="RMSprop"):
        analyze_training(model, loss, torch.optim.RMSprop(model.parameters()))


def test_a_loss_that_is_lost_is_told_as_that_and_not_as_a_failed_capture() -> None:
    model, optimizer = trained(SGD, lr=0.1)
    report = analyze_training(model, lambda module: loss(module) * math.nan, optimizer, steps=2)
    assert all(check.passed for check in report.verification), report.verification
    assert report.verdict.kind == "inconclusive"
    assert "NaN or infinity appears first in weights 1" in report.verdict.summary
    assert report.measurements.training is not None and report.measurements.training.stands == "unknown"
