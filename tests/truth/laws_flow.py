"""Vector fields and flows with known answers, at their full length."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import scipy.linalg
import torch
from torch import Tensor, nn
from truth import Row, law, number

import dynstab
from dynstab.linear.runge_kutta import METHODS

F64 = torch.float64


def _rows(system: str, found: Any, answers: dict[int, float], slack: float, source: str) -> Iterator[Row]:
    """Exponents by rank, within four standard errors and what the solver's step adds."""
    for rank, expected in answers.items():
        value, error = float(found.qr[rank - 1]), float(found.errors[rank - 1])
        yield Row(system, f"exponent {rank}, nat per unit time", value, expected, 4 * error + slack, source)


@law
def lorenz_63() -> Iterator[Row]:
    def field(t: Tensor, x: Tensor) -> Tensor:
        a, b, c = x.unbind()
        return torch.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c])

    found = dynstab.lyapunov_spectrum(field, torch.tensor([1.0, 1.0, 20.0], dtype=F64), time=400.0, dt=0.01, discard=40)
    source = "Sprott 2003"
    yield from _rows("Lorenz 63", found, {1: 0.9056, 2: 0.0, 3: -14.5723}, 2e-3, source)
    yield Row("Lorenz 63", "sum of the exponents", found.sum, -41 / 3, 2e-3, "the field's divergence")
    yield Row("Lorenz 63", "Kaplan-Yorke dimension", found.kaplan_yorke_dimension, 2.0621, 2e-3, source)


@law
def rossler() -> Iterator[Row]:
    def field(t: Tensor, x: Tensor) -> Tensor:
        a, b, c = x.unbind()
        return torch.stack([-b - c, a + 0.2 * b, 0.2 + c * (a - 5.7)])

    found = dynstab.lyapunov_spectrum(
        field, torch.tensor([1.0, 1.0, 1.0], dtype=F64), time=1000.0, dt=0.05, discard=100
    )
    yield from _rows("Rossler 0.2, 0.2, 5.7", found, {1: 0.0714, 2: 0.0, 3: -5.3943}, 4e-3, "Sprott 2003")


@law
def lorenz_96() -> Iterator[Row]:
    def field(t: Tensor, x: Tensor) -> Tensor:
        return (x.roll(-1) - x.roll(2)) * x.roll(1) - x + 8

    start = 8 + torch.randn(40, dtype=F64, generator=torch.Generator().manual_seed(0))
    found = dynstab.lyapunov_spectrum(field, start, time=200.0, dt=0.02, discard=40)
    system = "Lorenz 96, N = 40, F = 8"
    yield Row(system, "sum of the exponents", found.sum, -40.0, 2e-3, "the field's divergence")
    yield from _rows(system, found, {1: 1.68}, 2e-2, "Karimi & Paul 2010")
    yield Row(system, "Kaplan-Yorke dimension", found.kaplan_yorke_dimension, 27.1, 0.4, "Karimi & Paul 2010")


@law
def henon_heiles() -> Iterator[Row]:
    def field(t: Tensor, x: Tensor) -> Tensor:
        q1, q2, p1, p2 = x.unbind()
        return torch.stack([p1, p2, -q1 - 2 * q1 * q2, -q2 - q1.square() + q2.square()])

    start = torch.tensor([0.0, 0.1, 0.49, 0.1], dtype=F64)
    found = dynstab.lyapunov_spectrum(field, start, time=200.0, dt=0.02)
    yield Row("Henon-Heiles", "sum of the exponents", found.sum, 0.0, 1e-6, "Liouville")
    for rank in (0, 1):
        pair = float(found.finite_time[rank] + found.finite_time[3 - rank])
        yield Row("Henon-Heiles", f"exponents {rank + 1} and {4 - rank}, finite time", pair, 0.0, 2e-4, "symplectic")


@law
def stability_regions() -> Iterator[Row]:
    limits = {"euler": 2.0, "midpoint": 2.0, "rk4": 2.785293563405, "dopri5": 3.306567892635}
    for name, limit in limits.items():
        value = METHODS[name].real_limit()
        yield Row(f"stability region of {name}", "real axis", value, limit, 1e-9, "Hairer & Wanner 1996, IV.2")


class _Linear(nn.Module):
    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return x @ self.matrix.T


@law
def linear_flow() -> Iterator[Row]:
    matrix = torch.randn(8, 8, dtype=F64, generator=torch.Generator().manual_seed(3)) / math.sqrt(8)
    report = dynstab.analyze(
        _Linear(matrix),
        torch.randn(4, 8, dtype=F64, generator=torch.Generator().manual_seed(4)),
        config=dynstab.Config(system="flow", k=8),
    )
    flow = report.measurements.flow
    assert flow is not None
    expected = torch.as_tensor(scipy.linalg.svdvals(scipy.linalg.expm(matrix.numpy()))).log().tolist()
    for i in (0, 7):
        value, error = number(flow.exponents[i])
        yield Row("linear flow, N = 8", f"finite-time exponent {i + 1}", value, expected[i], error + 1e-6, "expm")
    value, error = number(flow.trace_integral)
    yield Row("linear flow, N = 8", "integral of the trace", value, float(matrix.trace()), error + 1e-9, "Liouville")
