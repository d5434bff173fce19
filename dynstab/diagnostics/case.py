"""Made-up networks that are healthy except for what a case names: how rules show when they fire."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from dynstab.core.estimate import Estimate, Label
from dynstab.core.flow_dynamics import FlowDynamics, SolverStep
from dynstab.core.frozen import Frozen
from dynstab.core.measurements import (
    GradientFlow,
    GrowthFit,
    Lyapunov,
    Measurements,
    NetworkMeasurement,
    StateMeasurement,
    StepMeasurement,
)
from dynstab.core.network_flow import NetworkFlow
from dynstab.core.report import Check, Choices, ModelInfo, StateInfo, StepInfo, SystemInfo
from dynstab.core.structure import Structure
from dynstab.core.time_dynamics import TimeDynamics
from dynstab.core.training_dynamics import TrainingDynamics
from dynstab.diagnostics.facts import Facts

Numbers = Mapping[str, Any]
Noun = TypeVar("Noun", bound=Frozen)

HEALTHY_STEP = {
    "rms_gain": 1.02,
    "relative_gain": 1.0,
    "largest_singular_value": 1.6,
    "smallest_singular_value": 0.5,
    "nullity": 0,
    "logarithmic_norm": 0.6,
    "spectral_radius": 1.2,
    "spectral_abscissa": 0.2,
    "log_determinant": 0.3,
    "henrici_departure": 0.2,
    "kreiss_constant": 1.3,
    "transient_growth": 1.7,
    "branch_share": 0.1,
    "update_ratio": 0.2,
    "dead_fraction": 0.0,
    "kink_fraction": 0.0,
    "eigenvalues": ((1.2, 0.0), (0.7, 0.1), (0.7, -0.1)),
}

HEALTHY_STATE = {
    "smallest_magnitude": 0.01,
    "nonfinite_fraction": 0.0,
    "effective_rank": 0.8,
    "token_similarity": 0.1,
}

HEALTHY_SOLVER_STEP = {
    "local_error": 1e-7,
    "tolerance_ratio": 0.5,
    "logarithmic_norm": 0.3,
    "abscissa": 0.1,
    "fastest_decay": 3.0,
    "slowest_decay": 0.5,
    "amplification": 1.01,
    "neutral_amplification": 0.98,
    "trace": -2.0,
}

HEALTHY_FLOW = {
    "solver": "dopri5",
    "order": 5,
    "adaptive": True,
    "source": "torchdiffeq.odeint_adjoint",
    "start": 0.0,
    "end": 1.0,
    "reached": 1.0,
    "outcome": "converged",
    "accepted": 12,
    "rejected": 1,
    "evaluations": 86,
    "adjoint": True,
    "real_limit": 3.3066,
    "stiffness_ratio": 6.0,
    "stiffness": 3.0,
    "solution_error": 1e-5,
    "adjoint_gap": 1e-4,
    "reversal_error": 1e-5,
}

HEALTHY_NETWORK = {
    "null_log_gain": Estimate(value=-0.1, error=0.1, unit="nat", method="finite width"),
    "refinement_order": 1.0,
    "depth_smoothness": 2.0,
    "underflow_depth": 1e6,
    "causal": False,
    "batch_coupled": False,
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network of 64-wide states with every number healthy, and what is different about this one.

    A plain number stands for an estimate over 8 inputs with an error of 1 %, None for an unmeasured one.

    Attributes:
        depth: steps, all of `kind`. names: their common beginning. time: kind of the system.
        gradient_rate, signal_rate: nat that each step adds to the relative gradient gain (backward)
            and to the states' rms (forward); all numbers that follow from these follow.
        every_step, every_state: numbers that differ in all of them. steps, states: by index.
        network: numbers of the whole network that differ.
        exponents: above the rates, in nat per step, descending.
        no_flow: the gradient at the states was not measured.
        failed: verification checks that did not pass. partial: measures that did not finish.
        flow: of a differential equation, the numbers of its chapter that differ.
        solver_steps: the same of every step of its solver.
        choices: what the capture had to settle.
        dynamics: of a system over time, the numbers of its chapter.
        training: of a training run, the numbers of its chapter.
        structure, network_flow: the numbers of those chapters, absent where empty.
    """

    depth: int = 12
    kind: Literal["residual", "plain", "transition"] = "residual"
    names: str = "blocks"
    time: str = "depth"
    gradient_rate: float = 0.0
    signal_rate: float = 0.0
    every_step: Numbers = field(default_factory=dict)
    every_state: Numbers = field(default_factory=dict)
    steps: Mapping[int, Numbers] = field(default_factory=dict)
    states: Mapping[int, Numbers] = field(default_factory=dict)
    network: Numbers = field(default_factory=dict)
    exponents: tuple[float, ...] = (0.05, 0.0, -0.05)
    dtype: str = "float32"
    training_dtype: str = "float32"
    no_flow: bool = False
    failed: tuple[str, ...] = ()
    partial: tuple[str, ...] = ()
    flow: Numbers = field(default_factory=dict)
    solver_steps: Numbers = field(default_factory=dict)
    choices: Choices = Choices()
    dynamics: Numbers = field(default_factory=dict)
    training: Numbers = field(default_factory=dict)
    structure: Numbers = field(default_factory=dict)
    network_flow: Numbers = field(default_factory=dict)

    def facts(self) -> Facts:
        """The case as a rule sees it."""
        return Facts(
            system=self._system(),
            measurements=self._measurements(),
            model=ModelInfo.model_validate(
                {
                    "source": "case",
                    "format": "case",
                    "class": "Network",
                    "parameters": 4096 * self.depth,
                    "trusted": True,
                    "dtype": self.training_dtype,
                }
            ),
            dtype=self.dtype,
            verification=(
                Check(check="output", passed=True, error=0.0),
                *(Check(check=name, passed=False, error=0.3) for name in self.failed),
            ),
        )

    def _system(self) -> SystemInfo:
        levels, steps = range(self.depth + 1), range(self.depth)
        return SystemInfo(
            kind=self.time,
            time_unit="layer",
            choices=self.choices,
            inputs=("randn:8,16,64",),
            states=tuple(
                StateInfo(index=i, name=f"state {i}", shape=(8, 16, 64), size=1024, tokens=16) for i in levels
            ),
            steps=tuple(
                StepInfo(index=i, name=f"{self.names}.{i}", kind=self.kind, source=i, target=i + 1) for i in steps
            ),
        )

    def _measurements(self) -> Measurements:
        rate = self.gradient_rate + self.signal_rate
        return Measurements(
            steps=tuple(self._step(index) for index in range(self.depth)),
            states=tuple(self._state(index) for index in range(self.depth + 1)),
            lyapunov=Lyapunov(
                qr=tuple(number(exponent + rate) for exponent in self.exponents),
                finite_time=tuple(number(exponent + rate + 0.01) for exponent in self.exponents),
            ),
            gradient_flow=tuple(self._flow(index) for index in range(self.depth + 1)),
            network=build(NetworkMeasurement, {**HEALTHY_NETWORK, **self._whole(), **self.network}),
            time=build(TimeDynamics, self.dynamics) if self.dynamics else None,
            training=build(TrainingDynamics, self.training) if self.training else None,
            flow=self._solver() if self.flow or self.solver_steps else None,
            structure=build(Structure, self.structure) if self.structure else None,
            network_flow=build(NetworkFlow, self.network_flow) if self.network_flow else None,
            partial=self.partial,
        )

    def _solver(self) -> FlowDynamics:
        size = 1.0 / max(self.depth, 1)
        steps = tuple(
            build(SolverStep, {**HEALTHY_SOLVER_STEP, **self.solver_steps, "index": i, "time": i * size, "size": size})
            for i in range(self.depth)
        )
        return build(FlowDynamics, {**HEALTHY_FLOW, "steps": steps, **self.flow})

    def _step(self, index: int) -> StepMeasurement:
        healthy = {**HEALTHY_STEP, "norm_growth": math.exp(self.signal_rate)}
        numbers = {**healthy, **self.every_step, **self.steps.get(index, {})}
        return build(StepMeasurement, {"index": index, "name": f"{self.names}.{index}", **numbers})

    def _state(self, index: int) -> StateMeasurement:
        rms = math.exp(self.signal_rate * index)
        healthy = {**HEALTHY_STATE, "rms": rms, "max_abs": 4 * rms}
        numbers = {**healthy, **self.every_state, **self.states.get(index, {})}
        return build(StateMeasurement, {"index": index, "name": f"state {index}", **numbers})

    def _flow(self, index: int) -> GradientFlow:
        if self.no_flow:
            return GradientFlow(state=index, name=f"state {index}")
        relative = math.exp(self.gradient_rate * (self.depth - index))
        raw = relative * math.exp(self.signal_rate * (self.depth - index))
        return GradientFlow(state=index, name=f"state {index}", gain=number(raw), relative_gain=number(relative))

    def _whole(self) -> Numbers:
        gradient, signal = self.gradient_rate * self.depth, self.signal_rate * self.depth
        law = "exponential" if abs(gradient) > 1 else "none"
        return {
            "log_gradient_gain": logarithm(gradient),
            "median_log_gradient_gain": logarithm(gradient),
            "raw_log_gradient_gain": logarithm(gradient + signal),
            "log_signal_gain": logarithm(signal),
            "growth": GrowthFit(law=law, rate=self.gradient_rate, errors={"exponential": 0.01}),
        }


def build(noun: type[Noun], numbers: Numbers) -> Noun:
    """A record in which plain numbers stand for estimates."""
    fields = noun.model_fields
    return noun(**{k: number(v) if fields[k].annotation is Estimate else v for k, v in numbers.items()})


def number(value: float | Estimate | None) -> Estimate:
    """An estimate with an error of 1 % over 8 inputs."""
    if isinstance(value, Estimate):
        return value
    if value is None:
        return Estimate.unmeasured("left out of this case")
    return Estimate(value=value, error=0.01 * abs(value), method="case", samples=8, products=16)


def logarithm(value: float, *, error: float = 0.1, samples: int = 8, products: int = 16) -> Estimate:
    """An estimate of a logarithm, in nat, with a standard error."""
    return Estimate(
        value=value,
        error=error,
        unit="nat",
        method="case",
        label=Label.ESTIMATE,
        samples=samples,
        products=products,
    )
