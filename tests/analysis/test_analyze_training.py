"""A report on a training run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

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


def test_an_optimiser_that_is_not_read_gets_a_sentence() -> None:
    model, _ = trained(SGD, lr=0.1)
    with pytest.raises(ConfigError, match="RMSprop"):
        analyze_training(model, loss, torch.optim.RMSprop(model.parameters()))
