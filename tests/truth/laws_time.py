"""Laws of recurrences: gates, maps, random networks, state-space layers, fixed points."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from scipy.integrate import quad
from scipy.optimize import brentq
from torch import Tensor, nn
from truth import F64, Row, law, number, seeded

import dynstab
from dynstab.core.measurements import Measurements

TIME = dynstab.Config(system="time", k=8)


def over_time(module: nn.Module, *inputs: Tensor, k: int = 8) -> Measurements:
    return dynstab.analyze(module, inputs, config=dynstab.Config(system="time", k=k)).measurements


def mean_field_exponent(gain: float) -> float:
    """The leading exponent of h <- W tanh(h), entries of W with variance gain^2/N, for N to infinity.

    Dynamic mean-field theory in discrete time: entries of h become Gaussian with the variance q that solves
    q = g^2 <tanh(sqrt(q) z)^2>; two copies of the network that differ by d differ by chi d one step later, with
    chi = g^2 <tanh'(sqrt(q) z)^2>, and the exponent is ln(chi)/2. Averages over a standard normal z by quadrature.

    References:
        Sompolinsky, Crisanti & Sommers (1988), Phys. Rev. Lett. 61; Engelken, Wolf & Abbott (2023), Phys. Rev. Res. 5.
    """

    def mean(f: object) -> float:
        weight = 1 / math.sqrt(2 * math.pi)
        return quad(lambda z: f(z) * math.exp(-z * z / 2) * weight, -12, 12, limit=400, epsabs=1e-12)[0]  # type: ignore[operator]

    q = brentq(lambda q: gain**2 * mean(lambda z: math.tanh(math.sqrt(q) * z) ** 2) - q, 1e-3, gain**2)
    chi = gain**2 * mean(lambda z: (1 - math.tanh(math.sqrt(q) * z) ** 2) ** 2)
    return math.log(chi) / 2


@law
def large_random_networks() -> Iterator[Row]:
    size = 1000
    for gain in (2.0, 3.0, 5.0, 10.0):
        generator = seeded(0)
        weight = gain * torch.randn(size, size, generator=generator) / size**0.5
        start = torch.randn(size, generator=generator)
        found = dynstab.lyapunov_spectrum(
            lambda h, weight=weight: weight @ torch.tanh(h), start, steps=3000, k=1, discard=500
        )
        value, error = float(found.qr[0]), float(found.errors[0])
        # One network of N units differs from the limit by a few parts in N.
        yield Row(f"random RNN g={gain:g}, N={size}", "leading exponent", value, mean_field_exponent(gain),
                  4 * error + 10 / size, "mean-field limit, solved by quadrature")  # fmt: skip


@law
def gates() -> Iterator[Row]:
    size, bias = 6, 1.5
    for kind, named in ((nn.LSTM, "forget"), (nn.GRU, "update")):
        layer = kind(2, size).double()
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.zero_()
            layer.bias_ih_l0[size : 2 * size] = bias
        found = over_time(layer, torch.randn(60, 4, 2, generator=seeded(0), dtype=F64), k=2 * size).lyapunov.qr
        expected = -math.log1p(math.exp(-bias))
        for i in (0, size - 1):
            # A hidden state of zero starts at zero: the exponents are those of the gate from the first step on.
            yield Row(f"{kind.__name__}, zero weights, {named} bias {bias}", f"exponent {i + 1}", number(found[i])[0],
                      expected, 1e-9, "ln sigmoid(bias)")  # fmt: skip
        if kind is nn.LSTM:
            yield Row("LSTM, zero weights, forget bias 1.5", f"exponent {size + 1}", number(found[size])[0], -math.inf,
                      0.0, "h is forgotten")  # fmt: skip


class Linear(nn.Module):
    """h <- W h + U x."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, state: Tensor, drive: Tensor) -> Tensor:
        return state @ self.weight.T + drive


@law
def linear_recurrences() -> Iterator[Row]:
    sequence, start = (
        torch.randn(400, 2, 4, generator=seeded(1), dtype=F64),
        torch.randn(2, 4, generator=seeded(2), dtype=F64),
    )
    basis = torch.randn(4, 4, generator=seeded(3), dtype=F64)
    multipliers = torch.tensor([0.95, 0.7, 0.5, 0.2], dtype=F64)
    found = over_time(Linear(basis @ torch.diag(multipliers) @ torch.linalg.inv(basis)), start, sequence)
    for i, multiplier in enumerate(multipliers.tolist()):
        yield Row("linear recurrence", f"exponent {i + 1}", number(found.lyapunov.qr[i])[0], math.log(multiplier), 1e-6,
                  "ln of the eigenvalues")  # fmt: skip
    unit = basis / basis.norm(dim=0)
    assert found.time is not None
    for i, angle in enumerate(found.time.angles):
        expected = math.acos(min(1.0, abs(float(unit[:, i] @ unit[:, i + 1]))))
        yield Row("linear recurrence", f"angle of covariant vectors {i + 1} and {i + 2}", number(angle)[0], expected,
                  1e-6, "angle of the eigenvectors")  # fmt: skip
    orthogonal = torch.linalg.qr(basis).Q
    found = over_time(Linear(orthogonal), start, 0.01 * sequence)
    for i in (0, 3):
        yield Row("orthogonal recurrence", f"exponent {i + 1}", number(found.lyapunov.qr[i])[0], 0.0, 1e-12, "isometry")


@law
def deep_equilibrium() -> Iterator[Row]:
    class Model(nn.Module):
        def __init__(self, weight: Tensor) -> None:
            super().__init__()
            self.block = Linear(weight)

        def forward(self, x: Tensor) -> Tensor:
            z = torch.zeros_like(x)
            for _ in range(40):
                z = self.block(z, x)
            return z

    noise = torch.randn(5, 5, generator=seeded(4), dtype=F64)
    axes = torch.linalg.qr(noise).Q
    radius = 0.8
    weight = axes @ torch.diag(torch.tensor([radius, 0.3, -0.2, 0.1, 0.05], dtype=F64)) @ axes.T
    found = over_time(Model(weight), torch.randn(4, 5, generator=seeded(5), dtype=F64))
    assert found.time is not None and found.time.fixed_point is not None
    point = found.time.fixed_point
    yield Row(
        "equilibrium of a linear block",
        "spectral radius",
        number(point.spectral_radius)[0],
        radius,
        1e-6,
        "by construction",
    )
    yield Row("equilibrium of a linear block", "rate of convergence", number(point.contraction)[0], math.log(radius),
              1e-6, "ln of the spectral radius")  # fmt: skip


@law
def henon_directions() -> Iterator[Row]:
    class Henon(nn.Module):
        def forward(self, state: Tensor) -> Tensor:
            return torch.stack([1 - 1.4 * state[..., 0] ** 2 + state[..., 1], 0.3 * state[..., 0]], -1)

    found = over_time(Henon(), 0.1 * torch.randn(16, 2, generator=seeded(6), dtype=F64))
    assert found.time is not None
    for i, expected in enumerate((0.41922, -1.62319)):
        value, error = number(found.lyapunov.qr[i])
        yield Row(
            "Henon 1.4, 0.3, as a system over time", f"exponent {i + 1}", value, expected, 4 * error, "Sprott 2003"
        )
    value, error = number(found.lyapunov.kaplan_yorke_dimension)
    yield Row(
        "Henon 1.4, 0.3, as a system over time", "Kaplan-Yorke dimension", value, 1.25827, 4 * error, "Sprott 2003"
    )
    value, _ = number(found.time.least_angle)
    yield Row("Henon 1.4, 0.3, as a system over time", "least angle of its directions", value, 0.0, 0.01, "tangencies")
