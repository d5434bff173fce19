"""Made-up training runs that are healthy except for what a case names: how rules over time show when they fire."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dynstab.core.estimate import Estimate, Label
from dynstab.core.run import Probe, RunInfo, Signal

GROUPS = ("embedding", "blocks.0", "blocks.1", "blocks.2", "head")
PLACES = ("blocks.0", "blocks.1", "blocks.2")

Change = Callable[[int], Mapping[str, Any]]


def _nothing(_: int) -> Mapping[str, Any]:
    return {}


def healthy_info(**changes: Any) -> RunInfo:
    """A network of three blocks, trained by AdamW, probed every ten steps."""
    info = RunInfo(
        dynstab="case",
        torch="case",
        created="2026-01-01T00:00:00+00:00",
        model="Network",
        parameters=50_000,
        device="cpu",
        dtype="float32",
        places=PLACES,
        groups=GROUPS,
        states=tuple(f"state {i}" for i in range(7)),
        steps=tuple(f"blocks.{i // 2} [{'attn' if i % 2 == 0 else 'mlp'}]" for i in range(6)),
        optimizer="AdamW",
        every=10,
    )
    return info.model_copy(update=changes)


@dataclass(frozen=True, kw_only=True)
class RunCase:
    """A run whose loss falls and whose norms scatter by a tenth, and what is different about this one.

    Attributes:
        steps: how many. info: what differs in the run itself.
        signal, probe: the training step -> what differs in the record of that step.
    """

    steps: int = 200
    info: Mapping[str, Any] | None = None
    signal: Change = _nothing
    probe: Change = _nothing

    def described(self) -> RunInfo:
        return healthy_info(**(self.info or {}))

    def records(self) -> Iterator[Signal | Probe]:
        """The run, record by record; the same at every call."""
        noise = random.Random(0)
        for step in range(self.steps):
            yield self._signal(step, noise)
            if step % 10 == 0:
                yield self._probe(step, noise)

    def _signal(self, step: int, noise: random.Random) -> Signal:
        def around(value: float, count: int) -> tuple[float, ...]:
            return tuple(value * math.exp(noise.gauss(0, 0.1)) for _ in range(count))

        healthy = {
            "loss": (0.5 + 2.0 * math.exp(-step / 80)) * math.exp(noise.gauss(0, 0.03)),
            "learning_rate": 1e-3,
            "activation_rms": around(1.0, len(PLACES)),
            "gradient_rms": around(1e-3, len(PLACES)),
            "nonfinite_fraction": (0.0,) * len(PLACES),
            "gradient_norm": around(0.3, len(GROUPS)),
            "update_norm": around(0.01, len(GROUPS)),
            "weight_norm": (8.0,) * len(GROUPS),
        }
        return Signal(step=step, seconds=0.1 * step, **{**healthy, **self.signal(step)})

    def _probe(self, step: int, noise: random.Random) -> Probe:
        healthy = {
            "exponents": tuple(0.05 - 0.03 * i + noise.gauss(0, 0.005) for i in range(3)),
            "step_gains": tuple(noise.gauss(0, 0.02) for _ in range(6)),
            "gradient_flow": tuple(noise.gauss(0, 0.1) for _ in range(7)),
            "sharpness": curvature(10.0 + 10.0 * math.tanh(step / 200)),
            "threshold": 40.0,
        }
        return Probe(step=step, seconds=0.1 * step, cost=0.05, **{**healthy, **self.probe(step)})


def curvature(value: float) -> Estimate:
    """A sharpness within a hundredth of its value."""
    return Estimate(value=value, error=0.01 * value, method="case", label=Label.CERTIFIED)
