"""Laws with known answers, measured by the public functions: `make truth` writes reports/truth.md.

Each row is a system whose answer is known in closed form or from the literature. The
command fails if a number lies farther from it than its stated error allows.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import torch
from scipy.special import polygamma, psi
from torch import Tensor, nn

import dynstab
from dynstab.core.estimate import Estimate

OUT = Path(__file__).resolve().parents[2] / "reports" / "truth.md"
F64 = torch.float64


@dataclass(frozen=True)
class Row:
    """A measured number beside its law; `allowed` is how far apart they may lie."""

    system: str
    quantity: str
    value: float
    reference: float
    allowed: float
    source: str

    @property
    def holds(self) -> bool:
        return self.value == self.reference or abs(self.value - self.reference) <= self.allowed


LAWS: list[Callable[[], Iterator[Row]]] = []


def law(function: Callable[[], Iterator[Row]]) -> Callable[[], Iterator[Row]]:
    LAWS.append(function)
    return function


def number(estimate: Estimate) -> tuple[float, float]:
    """A measured value and its error; a missing one is NaN, which no law allows."""
    if estimate.value is None:
        return math.nan, math.nan
    return estimate.value, estimate.error or 0.0


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def chain(matrices: list[Tensor], residual: bool = False) -> nn.Sequential:
    """Linear layers with these matrices."""

    class Residual(nn.Module):
        def __init__(self, matrix: Tensor) -> None:
            super().__init__()
            self.weight = nn.Parameter(matrix)

        def forward(self, x: Tensor) -> Tensor:
            update = x @ self.weight.T
            return x + update if residual else update

    return nn.Sequential(*(Residual(matrix) for matrix in matrices))


@law
def linear_maps() -> Iterator[Row]:
    multipliers = torch.tensor([2.0, 0.5, 0.1], dtype=F64)
    found = dynstab.lyapunov_spectrum(
        lambda x: multipliers * x, torch.ones(3, dtype=F64) * 1e-150, steps=200, discard=200
    )
    for value, expected in zip(found.qr.tolist(), multipliers.log().tolist(), strict=True):
        yield Row("diagonal map", "exponent", value, expected, 1e-12, "ln of the multiplier")
    matrix = torch.tensor([[0.9, 0.7], [-0.2, 0.4]], dtype=F64)
    found = dynstab.lyapunov_spectrum(lambda x: matrix @ x, torch.ones(2, dtype=F64), steps=4000, discard=200)
    expected = float(torch.linalg.eigvals(matrix).abs().log().max())
    yield Row("tied linear map", "leading exponent", float(found.qr[0]), expected, 1e-3, "ln of the spectral radius")


@law
def orthogonal_chain() -> Iterator[Row]:
    matrices = [torch.linalg.qr(torch.randn(32, 32, generator=seeded(i), dtype=F64)).Q for i in range(100)]
    report = dynstab.analyze(chain(matrices), torch.randn(8, 32, generator=seeded(0), dtype=F64))
    for name in ("qr", "finite_time"):
        value, error = number(getattr(report.measurements.lyapunov, name)[0])
        yield Row("orthogonal chain, 100 steps", f"leading exponent ({name})", value, 0.0, error + 1e-10, "isometry")
    value, error = number(report.measurements.network.largest_singular_values[0])
    yield Row("orthogonal chain, 100 steps", "largest singular value", value, 1.0, error + 1e-9, "isometry")


@law
def gaussian_chain() -> Iterator[Row]:
    size, steps, chains = 16, 200, 12
    found = []
    for seed in range(chains):
        generator = seeded(seed)
        factors = [torch.randn(size, size, generator=generator, dtype=F64) / size**0.5 for _ in range(steps)]
        report = dynstab.analyze(chain(factors), torch.randn(1, size, generator=generator, dtype=F64), config=QUICK)
        found.append([number(report.measurements.lyapunov.qr[i])[0] for i in range(4)])
    means = torch.tensor(found, dtype=F64).mean(0)
    for i in range(4):
        expected = 0.5 * (psi((size - i) / 2) + math.log(2 / size))
        allowed = 4 * math.sqrt(polygamma(1, (size - i) / 2) / (4 * steps * chains))
        yield Row(
            f"Gaussian chain N={size}, L={steps}, {chains} draws", f"QR exponent {i + 1}", float(means[i]), expected,
            allowed, "Newman 1986: (psi((N-i+1)/2) + ln(2/N))/2",
        )  # fmt: skip


QUICK = dynstab.Config(k=4, effort="quick")


@law
def residual_chain() -> Iterator[Row]:
    size, steps, a = 128, 20, 0.3
    matrices = [a * torch.randn(size, size, generator=seeded(i)) / size**0.5 for i in range(steps)]
    report = dynstab.analyze(chain(matrices, residual=True), torch.randn(16, size, generator=seeded(99)))
    value, _ = number(report.measurements.network.raw_log_gradient_gain)
    null, spread = number(report.measurements.network.null_log_gain)
    yield Row(
        f"residual chain, a={a}, L={steps}, N={size}", "ln gradient gain", value - null,
        steps / 2 * math.log(1 + a * a), 4 * spread, "mean of the squared gain: (1 + a^2)^L",
    )  # fmt: skip
    share, error = number(report.measurements.steps[0].branch_share)
    yield Row(f"residual chain, a={a}", "branch share", share, a * a / (1 + a * a), error + 0.01, "a^2 / (1 + a^2)")


@law
def known_maps() -> Iterator[Row]:
    def henon(x: Tensor) -> Tensor:
        return torch.stack([1 - 1.4 * x[0] ** 2 + x[1], 0.3 * x[0]])

    found = dynstab.lyapunov_spectrum(henon, torch.tensor([0.1, 0.1], dtype=F64), steps=20_000, discard=200)
    for value, error, expected in zip(found.qr, found.errors, (0.41922, -1.62319), strict=True):
        yield Row("Henon 1.4, 0.3", "exponent", float(value), expected, 4 * float(error), "Sprott 2003")
    yield Row("Henon 1.4, 0.3", "sum of exponents", found.sum, math.log(0.3), 1e-9, "ln 0.3")
    found = dynstab.lyapunov_spectrum(
        lambda x: 3.2 * x * (1 - x), torch.tensor([0.3], dtype=F64), steps=4000, discard=500
    )
    yield Row("logistic r = 3.2", "exponent", float(found.qr[0]), 0.5 * math.log(0.16), 1e-9, "ln(0.16) / 2")
    found = dynstab.lyapunov_spectrum(
        lambda x: 4 * x * (1 - x), torch.tensor([0.3], dtype=F64), steps=20_000, discard=100
    )
    yield Row("logistic r = 4", "exponent", float(found.qr[0]), math.log(2), 4 * float(found.errors[0]), "ln 2")


@law
def random_recurrent_networks() -> Iterator[Row]:
    size = 1000
    for gain, limit in ((2.0, 0.154724), (3.0, 0.310249)):
        weights = gain * torch.randn(size, size, generator=seeded(1)) / size**0.5
        start = torch.randn(size, generator=seeded(2))
        found = dynstab.lyapunov_spectrum(
            lambda h, w=weights: w @ torch.tanh(h), start, steps=1500, k=4, discard=600, memory_limit=0
        )
        # The limit is for N -> infinity; one network of N = 1000 scatters around it by about 3%.
        allowed = 4 * float(found.errors[0]) + 0.05 * limit
        yield Row(
            f"h <- W tanh h, N={size}, g={gain:g}", "leading exponent", float(found.qr[0]), limit, allowed,
            "mean field, N -> infinity",
        )  # fmt: skip


@law
def gated_recurrence() -> Iterator[Row]:
    size, bias = 6, 1.5
    cell = nn.LSTMCell(2, size).double()
    for parameter in cell.parameters():
        nn.init.zeros_(parameter)
    with torch.no_grad():
        cell.bias_ih[size : 2 * size] = bias
    x = torch.zeros(1, 2, dtype=F64)

    def step(state: Tensor) -> Tensor:
        h, c = cell(x, (state[None, :size], state[None, size:]))
        return torch.cat([h[0], c[0]])

    found = dynstab.lyapunov_spectrum(step, torch.full((2 * size,), 1e-3, dtype=F64), steps=60, discard=200)
    expected = math.log(1 / (1 + math.exp(-bias)))
    yield Row("LSTM, zero weights", f"exponents 1 to {size}", float(found.qr[:size].mean()), expected, 1e-9,
              "ln sigmoid(forget bias)")  # fmt: skip
    yield Row("LSTM, zero weights", "the others", float(found.qr[size:].max()), -math.inf, 0.0, "h is forgotten")


@law
def mean_field() -> Iterator[Row]:
    width, depth, sigma_w, sigma_b = 1000, 12, math.sqrt(1.76095), math.sqrt(0.05)
    layers: list[nn.Module] = []
    for layer in range(depth):
        linear = nn.Linear(width, width)
        with torch.no_grad():
            linear.weight.copy_(sigma_w * torch.randn(width, width, generator=seeded(layer)) / width**0.5)
            linear.bias.copy_(sigma_b * torch.randn(width, generator=seeded(1000 + layer)))
        layers += [linear, nn.Tanh()]
    # From the fixed point q* of the length map, so that every layer is at criticality.
    report = dynstab.analyze(nn.Sequential(*layers), 0.6 * torch.randn(8, width, generator=seeded(7)), config=QUICK)
    chi = [number(step.rms_gain)[0] for step in report.measurements.steps[depth // 2 :]]
    yield Row(
        "tanh network, sigma_w^2 = 1.76095, sigma_b^2 = 0.05", "chi, mean of the last layers", sum(chi) / len(chi), 1.0,
        0.05, "Poole et al. 2016, Schoenholz et al. 2017: critical",
    )  # fmt: skip


@law
def finite_width() -> Iterator[Row]:
    width, depth, draws = 32, 50, 24
    logs = []
    for seed in range(draws):
        generator, layers = seeded(seed), []
        for _ in range(depth):
            linear = nn.Linear(width, width, bias=False)
            with torch.no_grad():
                linear.weight.copy_(torch.randn(width, width, generator=generator) * math.sqrt(2 / width))
            layers += [linear, nn.ReLU()]
        report = dynstab.analyze(nn.Sequential(*layers), torch.randn(4, width, generator=generator), config=QUICK)
        logs.append(2 * number(report.measurements.network.raw_log_gradient_gain)[0])
    values = torch.tensor(logs)
    spread = math.sqrt(5 * depth / width)
    yield Row(
        f"ReLU He network, N={width}, L={depth}, {draws} draws", "mean of ln gain^2", float(values.mean()),
        -2.5 * depth / width, 4 * spread / math.sqrt(draws) + 0.5, "finite width: -2.5 L/N",
    )  # fmt: skip


@law
def fields() -> Iterator[Row]:
    field = torch.tensor([[-1.0, 2.0], [0.0, -0.5]], dtype=F64)
    report = dynstab.analyze(chain([field], residual=True), torch.randn(2, 2, dtype=F64, generator=seeded(0)))
    step = report.measurements.steps[0]
    for quantity, estimate, expected in (
        ("logarithmic norm", step.logarithmic_norm, 0.280776406404415),
        ("spectral abscissa", step.spectral_abscissa, -0.5),
    ):
        value, error = number(estimate)
        yield Row("Euler step of [[-1, 2], [0, -0.5]]", quantity, value, expected, error + 1e-12, "Soderlind 2006")


@law
def attention() -> Iterator[Row]:
    tokens, size = 5, 8
    layer = nn.MultiheadAttention(size, 1, batch_first=True, bias=False).double()
    with torch.no_grad():
        for index, parameter in enumerate(layer.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=seeded(index), dtype=F64) / size**0.5)

    x = torch.randn(1, 1, size, generator=seeded(5), dtype=F64).expand(1, tokens, size).contiguous()
    jacobian = dynstab.jacobian(lambda x: layer(x, x, x, need_weights=False)[0], x)
    sigma = [number(each)[0] for each in dynstab.singular_values(jacobian, which="all")]
    rank = sum(value > 1e-12 * sigma[0] for value in sigma)
    yield Row("attention, equal tokens", "nullity", tokens * size - rank, (tokens - 1) * size, 0.0, "(n - 1) d")
    value_weight, out = layer.in_proj_weight[2 * size :], layer.out_proj.weight
    expected = torch.linalg.svdvals(out @ value_weight)
    for i in (0, size - 1):
        yield Row("attention, equal tokens", f"singular value {i + 1}", sigma[i], float(expected[i]), 1e-10,
                  "svd(W_O W_V)")  # fmt: skip


@law
def long_products() -> Iterator[Row]:
    logs = torch.tensor([12.0, 4.0, -60.0, -105.0], dtype=F64) / 20  # condition e^117 = 1e51
    q = [torch.linalg.qr(torch.randn(4, 4, generator=seeded(i), dtype=F64)).Q for i in range(21)]
    factors = [q[i + 1] @ torch.diag(logs.exp()) @ q[i].T for i in range(20)]
    report = dynstab.analyze(chain(factors), torch.randn(1, 4, generator=seeded(1), dtype=F64))
    for i, expected in enumerate(logs.tolist()):
        value, error = number(report.measurements.lyapunov.finite_time[i])
        yield Row("product of condition 1e51", f"finite-time exponent {i + 1}", value, expected, error + 1e-12,
                  "by construction")  # fmt: skip


def all_laws() -> list[Callable[[], Iterator[Row]]]:
    """Those of this module and of every laws_*.py beside it, which take `law` and `Row` from here."""
    sys.modules.setdefault("truth", sys.modules[__name__])
    for path in sorted(Path(__file__).parent.glob("laws_*.py")):
        import_module(path.stem)
    return LAWS


def main() -> int:
    rows: list[Row] = []
    started = time.perf_counter()
    for each in all_laws():
        rows += each()
        print(f"{time.perf_counter() - started:6.1f} s  {each.__name__}", flush=True)
    OUT.write_text(_page(rows))
    broken = [row for row in rows if not row.holds]
    for row in broken:
        print(f"does not hold: {row}")
    print(f"{len(rows) - len(broken)} of {len(rows)} laws hold; written to {OUT.name}")
    return 1 if broken else 0


def _page(rows: list[Row]) -> str:
    head = [
        "# Truth: measured numbers beside their laws",
        "",
        f"Written by `make truth` (dynstab {dynstab.__version__}, torch {torch.__version__}). Every number comes from",
        "the public functions, at their own settings. *Allowed* is the stated error of the number (four standard",
        "errors where it is statistical), plus what the law itself leaves out where it is asymptotic.",
        "",
        "| system | quantity | measured | law | off by | allowed | holds | source |",
        "|---|---|---|---|---|---|---|---|",
    ]
    body = [
        f"| {r.system} | {r.quantity} | {r.value:.7g} | {r.reference:.7g} "
        f"| {0.0 if r.value == r.reference else abs(r.value - r.reference):.1e} | {r.allowed:.1e} "
        f"| {'yes' if r.holds else '**no**'} | {r.source} |"
        for r in rows
    ]
    return "\n".join([*head, *body]) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
