"""Training as a dynamical system: multipliers of optimisers on a bowl, and the edge of stability."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import SGD
from truth import F64, Row, law, number

import dynstab

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "edge_of_stability.py"


class Bowl(nn.Module):
    """1/2 sum_i curvature_i theta_i^2."""

    def __init__(self, *curvature: float) -> None:
        super().__init__()
        self.curvature = torch.tensor(curvature, dtype=F64)
        self.theta = nn.Parameter(torch.ones_like(self.curvature))


def depth(model: nn.Module) -> Tensor:
    assert isinstance(model, Bowl)
    return 0.5 * (model.curvature * model.theta.square()).sum()


@law
def multipliers_of_gradient_descent() -> Iterator[Row]:
    model = Bowl(25.0, 4.0, 1.0)
    report = dynstab.analyze_training(model, depth, SGD([model.theta], lr=0.1), steps=20)
    laws = sorted((math.log(abs(1 - 0.1 * c)) for c in (25.0, 4.0, 1.0)), reverse=True)
    for rank, (found, exact) in enumerate(zip(report.measurements.lyapunov.finite_time, laws, strict=False), start=1):
        value, error = number(found)
        name = f"exponent {rank} = ln abs(1 - eta lambda)"
        yield Row("gradient descent on a bowl, eta 0.1", name, value, exact, error + 1e-9, "linear recurrence")


@law
def threshold_of_heavy_ball() -> Iterator[Row]:
    model = Bowl(38.0, 1.0)
    found = dynstab.training_stability(model, depth, SGD([model.theta], lr=0.1, momentum=0.9), rtol=1e-8)
    value, error = number(found.ratio)
    yield Row("heavy ball 0.9, eta 0.1, lambda 38", "sharpness / threshold", value, 1.0, error + 1e-9, "3.8 / eta")


@law
def edge_of_stability() -> Iterator[Row]:
    spec = importlib.util.spec_from_file_location("edge_of_stability", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with redirect_stdout(StringIO()):
        settled = module.main(steps=2000, every=50)
    for name, exact in (("SGD", 2.0), ("Adam", 38.0)):
        quantity = f"eta x sharpness under {name}, full batch"
        yield Row("tanh network on digits", quantity, settled[name], exact, 0.05 * exact, "Cohen et al. 2021, 2022")
