"""Reports as an analysis would leave them, built by hand."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from dynstab.core.config import Config
from dynstab.core.estimate import Estimate, Label
from dynstab.core.flag import Flag, Severity, Verdict
from dynstab.core.measurements import (
    GradientFlow,
    GrowthFit,
    Lyapunov,
    Measurements,
    NetworkMeasurement,
    StateMeasurement,
    StepMeasurement,
)
from dynstab.core.report import Check, ModelInfo, Provenance, Report, StateInfo, StepInfo, SystemInfo

HUTCHINSON = "Hutchinson, 16 probes"
LANCZOS = "block Golub-Kahan, block 8"


def _estimate(value: float, share: float = 0.0, method: str = HUTCHINSON, label: Label = Label.ESTIMATE) -> Estimate:
    return Estimate(value=value, error=abs(value) * share, method=method, label=label, products=16, samples=8)


def _provenance(**changes: object) -> Provenance:
    facts: dict = {
        "dynstab": "0.1.0",
        "torch": "2.13.0",
        "device": "cpu",
        "dtype": "float32",
        "seed": 0,
        "config": Config(),
        "created": "2026-01-02T03:04:05Z",
        "seconds": 41.7,
        "products": 12480,
        "samples": 8,
        "routes": {"rule": 926, "double backward: aten.cumprod": 2},
    }
    return Provenance(**{**facts, **changes})


def _checks(passed: bool = True) -> tuple[Check, ...]:
    return (
        Check(check="output equals the model's", passed=True, error=0.0, detail="8 inputs"),
        Check(check="output depends on the source", passed=True, error=None),
        Check(check="equal after parameters move", passed=True, error=2.4e-7),
        Check(check="steps' product equals autograd's gradient", passed=passed, error=3.1e-7 if passed else 0.31),
        Check(check="adjoint identity", passed=True, error=1.2e-7),
    )


def _system(names: list[str], kinds: list[str], shape: tuple[int, ...], **changes: object) -> SystemInfo:
    size = math.prod(shape)
    steps = tuple(
        StepInfo(index=i, name=name, kind=kind, source=i, target=i + 1, block=name.split(" ")[0])
        for i, (name, kind) in enumerate(zip(names, kinds, strict=True))
    )
    states = tuple(StateInfo(index=i, name=name, shape=shape, size=size) for i, name in enumerate(["input", *names]))
    facts: dict = {"kind": "depth", "time_unit": "layer", "rung": "pre-dispatch trace", "inputs": ()}
    return SystemInfo(**{**facts, "steps": steps, "states": states, **changes})


def _flow(name: str, index: int, depth: int, rate: float) -> GradientFlow:
    gain = math.exp(rate * (depth - index))
    return GradientFlow(
        state=index,
        name=name,
        gain=_estimate(gain * (1 + 0.02 * (depth - index)), 0.03),
        relative_gain=_estimate(gain, 0.03),
        lower=_estimate(gain * math.exp(-0.06 * (depth - index)), 0.01, LANCZOS, Label.UPPER),
        upper=_estimate(gain * math.exp(0.09 * (depth - index)), 0.01, LANCZOS, Label.LOWER),
        product_upper=_estimate(gain * math.exp(0.4 * (depth - index)), label=Label.UPPER),
    )


def stable() -> Report:
    """A transformer of twelve blocks at its initialization."""
    draw = random.Random(1)
    names = [f"transformer.h.{i // 2} [{'ln_1+attn' if i % 2 == 0 else 'ln_2+mlp'}]" for i in range(24)]
    steps = tuple(
        StepMeasurement(
            index=i,
            name=name,
            rms_gain=_estimate(draw.uniform(1.01, 1.06), 0.012),
            relative_gain=_estimate(draw.uniform(0.98, 1.01), 0.012),
            largest_singular_value=_estimate(draw.uniform(1.2, 1.7), 2e-4, LANCZOS, Label.LOWER),
            smallest_singular_value=Estimate.unmeasured("forward-only Krylov is blind to it; --effort thorough"),
            nullity=_estimate(768.0 if i % 2 else 0.0, label=Label.EXACT),
            logarithmic_norm=_estimate(draw.uniform(0.2, 0.6), 3e-3, "block Lanczos", Label.LOWER),
            spectral_radius=_estimate(draw.uniform(1.1, 1.3), 1e-6, "token blocks", Label.EXACT),
            spectral_abscissa=_estimate(draw.uniform(0.1, 0.3), 1e-6, "token blocks", Label.EXACT),
            log_determinant=_estimate(draw.uniform(-3, 3), 1e-6, "token blocks", Label.EXACT),
            branch_share=_estimate(draw.uniform(0.02, 0.06), 0.1),
            norm_growth=_estimate(draw.uniform(1.0, 1.07), 0.001, "primal", Label.EXACT),
            update_ratio=_estimate(draw.uniform(0.1, 0.3), 0.01, "primal", Label.EXACT),
        )
        for i, name in enumerate(names)
    )
    states = tuple(
        StateMeasurement(index=i, name=name, rms=_estimate(1.0 * 1.035**i, 0.001, "primal", Label.EXACT))
        for i, name in enumerate(["input", *names])
    )
    return Report(
        provenance=_provenance(),
        model=ModelInfo(
            source="models/gpt2.pt",
            format="pickled module",
            class_name="GPT2Model",
            parameters=124_439_808,
            trusted=False,
        ),
        verification=_checks(),
        system=_system(
            names,
            ["residual"] * 24,
            (64, 768),
            inputs=("input_ids int64 (8, 64), made up: randint 0..50257",),
            notes=("dropout is off: the model is in eval mode",),
        ),
        measurements=Measurements(
            steps=steps,
            states=states,
            lyapunov=Lyapunov(
                qr=tuple(_estimate(0.021 - 0.001 * i, 0.05, "QR, float64 logarithms") for i in range(8)),
                finite_time=tuple(_estimate(0.034 - 0.0013 * i, 1e-5, "product-QR", Label.CERTIFIED) for i in range(8)),
                sum=_estimate(-0.84, 1e-7, "token blocks", Label.EXACT),
                expansion_sum=Estimate.unmeasured("needs all exponents; k is 8 of 49152", unit="nat/step"),
            ),
            gradient_flow=tuple(_flow(n, i, 24, 0.011) for i, n in enumerate(["input", *names])),
            network=NetworkMeasurement(
                largest_singular_values=tuple(_estimate(2.26 - 0.05 * i, 1e-4, LANCZOS, Label.LOWER) for i in range(8)),
                log_gradient_gain=_estimate(0.264, 0.11),
                median_log_gradient_gain=_estimate(0.259, 0.1),
                raw_log_gradient_gain=_estimate(0.66, 0.1),
                null_log_gain=Estimate(value=-0.08, error=0.4),
                log_signal_gain=_estimate(0.826, 0.001),
                growth=GrowthFit(law="logarithmic", rate=0.011, errors={"exponential": 0.2, "logarithmic": 0.1}),
                causal=True,
                batch_coupled=False,
            ),
        ),
        flags=(
            Flag(
                code="DS501",
                name="not-a-flow",
                severity=Severity.INFO,
                where="network",
                message="Refining the depth step does not converge (order 0.2, a sampled flow has at least 0.8).",
                evidence={"order": 0.2, "threshold": 0.8},
            ),
        ),
        verdict=Verdict(
            kind="stable",
            confidence="high",
            margin=2.74,
            summary="Signals and gradients keep their size through 24 steps: G = 0.26 ± 0.03 nat, well inside ±3.",
        ),
    )


def exploding() -> Report:
    """A multilayer perceptron of a hundred layers, initialized too large; step 41 is worse than the others."""
    draw = random.Random(2)
    names = [f"layers.{i}.linear" for i in range(100)]
    growth = [1.22 if i != 41 else 3.4 for i in range(100)]
    steps = tuple(
        StepMeasurement(
            index=i,
            name=name,
            rms_gain=_estimate(growth[i] ** 2 * draw.uniform(0.95, 1.05), 0.02, "dense", Label.EXACT),
            relative_gain=_estimate(draw.uniform(0.98, 1.04), 0.02, "dense", Label.EXACT),
            largest_singular_value=_estimate(growth[i] * 1.9 * draw.uniform(0.97, 1.03), 1e-7, "dense", Label.EXACT),
            smallest_singular_value=_estimate(draw.uniform(1e-4, 3e-3), 1e-7, "dense", Label.EXACT),
            nullity=_estimate(float(draw.randint(20, 44)), label=Label.EXACT, method="dense"),
            spectral_radius=_estimate(draw.uniform(0.9, 1.3), 1e-7, "dense", Label.EXACT),
            logarithmic_norm=Estimate.unmeasured("for residual steps only"),
            norm_growth=_estimate(growth[i] * draw.uniform(0.98, 1.02), label=Label.EXACT, method="primal"),
            dead_fraction=_estimate(draw.uniform(0.0, 0.1), label=Label.EXACT, method="primal"),
        )
        for i, name in enumerate(names)
    )
    return Report(
        provenance=_provenance(seconds=3.2, products=1600, samples=64, routes={"rule": 200}),
        model=ModelInfo(
            source="mlp100.pt", format="pickled module", class_name="Sequential", parameters=420_000, trusted=False
        ),
        verification=_checks(passed=False),
        system=_system(names, ["plain"] * 100, (64,), inputs=("input float32 (64, 64), from digits.npy",)),
        measurements=Measurements(
            steps=steps,
            lyapunov=Lyapunov(
                qr=tuple(_estimate(0.206 - 0.01 * i, 0.01, "QR, float64 logarithms") for i in range(4)),
                finite_time=tuple(_estimate(0.223 - 0.01 * i, 1e-12, "product-QR", Label.EXACT) for i in range(4)),
            ),
            gradient_flow=tuple(_flow(n, i, 100, 0.21) for i, n in enumerate(["input", *names])),
            network=NetworkMeasurement(
                largest_singular_values=tuple(_estimate(4.85e9 / 3**i, 1e-3, LANCZOS, Label.LOWER) for i in range(4)),
                log_gradient_gain=_estimate(20.9, 0.004),
                null_log_gain=Estimate(value=-3.9, error=2.8),
                growth=GrowthFit(law="exponential", rate=0.208, errors={"exponential": 0.2, "logarithmic": 90.1}),
                underflow_depth=_estimate(415.0),
            ),
        ),
        flags=(
            Flag(
                code="DS301",
                name="outlier-step",
                severity=Severity.WARNING,
                where="layers.41.linear (step 41)",
                steps=(41,),
                message="Its RMS gain of 11.6 stands out: |ln χ| is 2.45, the cut 0.7.",
                evidence={"log_gain": 2.45, "threshold": 0.7, "ok": False},
                advice=("Look at the initialization of layers.41.linear.",),
            ),
            Flag(
                code="DS101",
                name="exploding-gradient",
                severity=Severity.ERROR,
                where="network",
                steps=tuple(range(100)),
                message="The gradient grows by e^20.9 from the output to the input, "
                "0.208 nat per step, and an exponential fits best.",
                evidence={"G": 20.9, "threshold": 7.0, "standard_error": 0.08, "law": "exponential"},
                advice=(
                    "Divide the weights by 1.23, the factor by which a step grows, or use He initialization.",
                    "Add residual connections or normalization.",
                    "Clip the gradient's norm until the cause is removed.",
                ),
            ),
        ),
        verdict=Verdict(
            kind="exploding",
            confidence="high",
            margin=13.9,
            summary="Gradients explode through 100 steps: G = 20.9 ± 0.1 nat, a factor of 1.2e9; the cut is 7.",
        ),
    )


def broken() -> Report:
    """NaN, infinities, nulls and hostile names everywhere."""
    nan, inf = math.nan, math.inf
    names = [
        "[bold]red[/bold] & <script>alert('x')</script>",
        "a.very.long.module.path." * 8 + "with_the_end_that_matters [norm+attention+projection]",
        "pipe | star * tick ` under_score\twith\nlines \x1b[31mescape \u202e bidi",
        "漢字の層." * 6,
        "",
    ]
    odd = [nan, inf, -inf, 0.0, None]
    steps = tuple(
        StepMeasurement(
            index=i,
            name=name,
            rms_gain=Estimate(value=odd[i], error=nan, outcome="converged" if odd[i] is not None else "not finite"),
            largest_singular_value=Estimate(
                value=odd[(i + 1) % 5], error=inf, outcome="reached its budget of 40 sweeps"
            ),
            logarithmic_norm=Estimate(value=odd[(i + 2) % 5], error=None, label=Label.PROBABILISTIC),
            norm_growth=Estimate(value=odd[i]),
            kreiss_constant=Estimate(value=1e-300, error=1e-310),
        )
        for i, name in enumerate(names)
    )
    flow = tuple(
        GradientFlow(state=i, relative_gain=Estimate(value=value), gain=Estimate(value=value, error=nan))
        for i, value in enumerate([*odd, 1e300])
    )
    return Report(
        provenance=_provenance(interrupted=True, samples=1, routes={}),
        model=ModelInfo(source="/tmp/[red]<b>&\x1b[2J.pt", format="?", class_name="M[0]", parameters=0, trusted=True),
        verification=(Check(check="output equals the model's", passed=False, error=nan, detail="<NaN>"),),
        system=_system(names, ["plain", "residual", "transition", "plain", "plain"], ()),
        measurements=Measurements(
            steps=steps,
            lyapunov=Lyapunov(
                qr=(Estimate(value=nan), Estimate(value=-inf), Estimate.unmeasured("[i]rank[/i] deficient"))
            ),
            gradient_flow=flow,
            network=NetworkMeasurement(log_gradient_gain=Estimate(value=inf, error=nan)),
            partial=("spectra", "[bold]flow[/bold]"),
        ),
        flags=(
            Flag(
                code="DS001",
                name="non-finite",
                severity=Severity.ERROR,
                where=names[0],
                steps=(0, 1),
                message="NaN first appears in [bold]red[/bold] & <script>: ]]> \x00 | `x`",
                advice=("[link=x]y[/link]",),
                evidence={"first": nan, "largest": inf, "states": [0, 1], "name": "<&>", "none": None},
            ),
        ),
        verdict=Verdict(kind="inconclusive", confidence="low", summary="[blink]Nothing[/blink] can be said: <NaN>."),
    )


def empty() -> Report:
    """A model whose output is its input: no steps, nothing to measure."""
    return Report(
        provenance=_provenance(samples=1, routes={}, products=0, seconds=0.04),
        model=ModelInfo(source="", format="module", class_name="Identity", parameters=0, trusted=True),
        verification=_checks()[:2],
        system=_system([], [], (4,), notes=("the output is the input",)),
        measurements=Measurements(),
        flags=(),
        verdict=Verdict(kind="inconclusive", confidence="low", summary="There are no steps to speak of."),
    )


SAMPLES: dict[str, Callable[[], Report]] = {each.__name__: each for each in (stable, exploding, broken, empty)}


@pytest.fixture(params=SAMPLES)
def sample(request: pytest.FixtureRequest) -> tuple[str, Report]:
    """Each sample report with its name."""
    return request.param, SAMPLES[request.param]()


@pytest.fixture
def samples() -> dict[str, Report]:
    """All sample reports by name."""
    return {name: build() for name, build in SAMPLES.items()}
