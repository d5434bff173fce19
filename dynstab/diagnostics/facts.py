"""What the rules may look at: a report without its findings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from dynstab.core.estimate import CONVERGED, Estimate, Label
from dynstab.core.measurements import Measurements, StateMeasurement, StepMeasurement
from dynstab.core.report import Check, ModelInfo, Report, StepInfo, SystemInfo
from dynstab.core.time_dynamics import ON_A_CYCLE, FixedPoint
from dynstab.diagnostics.thresholds import RANGES, Range

_OF_DERIVATIVES = ("output depends on the source", "product of the steps equals autograd", "adjoint identity")

Architecture = Literal["transformer", "residual", "recurrent", "map", "flow", "plain"]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Measurements and the little around them that a judgement needs.

    Attributes:
        dtype: of the analysis. training_dtype: in which the model trains, None for the dtype of its weights.
        verification: of the capture. interrupted: the analysis was stopped early.
    """

    system: SystemInfo
    measurements: Measurements
    model: ModelInfo
    dtype: str = "float32"
    training_dtype: str | None = None
    verification: tuple[Check, ...] = ()
    interrupted: bool = False

    @classmethod
    def of(cls, report: Report, *, training_dtype: str | None = None) -> Facts:
        """The facts of a report, so that an old one can be diagnosed again without its model."""
        return cls(
            system=report.system,
            measurements=report.measurements,
            model=report.model,
            dtype=report.provenance.dtype,
            training_dtype=training_dtype,
            verification=report.verification,
            interrupted=report.provenance.interrupted,
        )

    @property
    def depth(self) -> int:
        """L, the number of steps."""
        return len(self.system.steps)

    @property
    def samples(self) -> int:
        """Independent inputs: the most that the size of any state is a mean over, at least 1."""
        return max((state.rms.samples for state in self.measurements.states), default=1)

    @property
    def way_back(self) -> str:
        """The way of the gradient, for a sentence."""
        return f"from the {'output' if self.system.axis == 'depth' else 'last state'} back to the first state"

    @property
    def through(self) -> str:
        """All of the steps, for a sentence: "the whole depth"."""
        return "the whole depth" if self.system.axis == "depth" else f"all {self.depth} steps"

    @property
    def rest(self) -> FixedPoint | None:
        """Where a map without drive rests, if it does."""
        return self.measurements.time.fixed_point if self.measurements.time else None

    @property
    def cycle(self) -> str:
        """In words, the attracting cycle on which the states of all inputs settle; empty where they do not."""
        outcome = self.measurements.time.outcome if self.measurements.time else ""
        return outcome if outcome.startswith(ON_A_CYCLE) else ""

    @property
    def attracted(self) -> bool:
        """The states come to rest, or to a cycle, that attracts: there gradients shrink because they converge."""
        if self.cycle:
            return True
        radius = self.rest.spectral_radius if self.rest else None
        bound = at_most(radius) if radius else None
        return bound is not None and bound < 1

    @cached_property
    def _steps(self) -> dict[int, StepInfo]:
        return {step.index: step for step in self.system.steps}

    def kind(self, index: int) -> str:
        """Residual, plain or transition; an unknown step counts as plain."""
        step = self._steps.get(index)
        return step.kind if step else "plain"

    def residual_steps(self) -> tuple[StepMeasurement, ...]:
        return tuple(step for step in self.measurements.steps if self.kind(step.index) == "residual")

    def place(self, index: int) -> str:
        """A step for people: "transformer.h.3 [attn] (step 7)"."""
        step = self._steps.get(index)
        return f"{step.name} (step {index})" if step and step.name else f"step {index}"

    def name(self, index: int) -> str:
        """A step's own name, or "step 7"."""
        step = self._steps.get(index)
        return step.name if step and step.name else f"step {index}"

    def state_name(self, index: int) -> str:
        """A state for people: "transformer.h.3 (state 7)"."""
        name = next((state.name for state in self.system.states if state.index == index), "")
        return f"{name} (state {index})" if name and name != f"state {index}" else f"state {index}"

    @property
    def trains_in(self) -> str:
        """The training dtype's bare name, e.g. "float16"."""
        return (self.training_dtype or self.model.dtype).removeprefix("torch.")

    @property
    def range(self) -> Range:
        """Of the training dtype; float32's where the dtype is not a known floating-point type."""
        return RANGES.get(self.trains_in, RANGES["float32"])

    @cached_property
    def architecture(self) -> Architecture:
        """The family of network that advice is chosen for."""
        if self.system.kind == "time":
            return "recurrent" if self.model.parameters else "map"
        if self.system.kind == "flow":
            return "flow"
        residual = sum(step.kind == "residual" for step in self.system.steps)
        if 2 * residual < max(self.depth, 1):
            return "plain"
        names = " ".join(f"{step.name} {step.block}" for step in self.system.steps).lower()
        return "transformer" if "attn" in names or "attention" in names else "residual"

    @property
    def depth_to_range(self) -> float | None:
        """Steps back after which gradients leave the range of the training dtype, None where unknown or without end."""
        return finite(self.measurements.network.underflow_depth) if self.depth else None

    @property
    def gradient_direction(self) -> float:
        """Positive where the raw gradient grows on its way back, negative where it shrinks, 0 where unknown."""
        network = self.measurements.network
        return finite(network.raw_log_gradient_gain) or 0.0

    @property
    def failed_checks(self) -> tuple[Check, ...]:
        """Checks that speak against the capture: where a state is NaN or infinite, derivatives cannot be compared."""
        failed = tuple(check for check in self.verification if not check.passed)
        if first_broken_state(self) is None:
            return failed
        return tuple(check for check in failed if check.check not in _OF_DERIVATIVES)

    @property
    def linearised_otherwise(self) -> bool:
        """Only the comparison with autograd failed: the capture is the model's, its backward is not."""
        return bool(self.failed_checks) and all("autograd" in check.check.lower() for check in self.failed_checks)

    @property
    def caution(self) -> str:
        """A remark for messages that rest on eigenvalues: under a causal mask they say little of gains."""
        if self.measurements.network.causal:
            return " (causal mask: eigenvalues come from the diagonal token blocks alone and say little of gains)"
        return ""


def finite(estimate: Estimate) -> float | None:
    """The value where it is a finite number, else None."""
    value = estimate.value
    return value if value is not None and math.isfinite(value) else None


def error(estimate: Estimate) -> float:
    """The half-width: 0 where none is stated, infinite where it is not a number."""
    if estimate.error is None:
        return 0.0
    return math.inf if math.isnan(estimate.error) else abs(estimate.error)


def standard_error(estimate: Estimate) -> float:
    """Numerical error and scatter over the inputs together."""
    spread = estimate.spread if estimate.spread is not None and math.isfinite(estimate.spread) else 0.0
    return math.hypot(error(estimate), spread / math.sqrt(max(estimate.samples, 1)))


def at_most(estimate: Estimate) -> float | None:
    """The largest value that the estimate allows; None where it is a lower bound or unmeasured."""
    value = finite(estimate)
    return None if value is None or estimate.label is Label.LOWER else value + error(estimate)


def at_least(estimate: Estimate) -> float | None:
    """The smallest value that the estimate allows; None where it is an upper bound or unmeasured."""
    value = finite(estimate)
    upper = estimate.label in (Label.UPPER, Label.PROBABILISTIC)
    return None if value is None or upper else value - error(estimate)


def log(estimate: Estimate) -> float | None:
    """ln of a nonnegative value, -inf at zero; None where unmeasured, negative or NaN."""
    value = estimate.value
    if value is None or math.isnan(value) or value < 0:
        return None
    return math.log(value) if value > 0 else -math.inf


def first_broken_state(facts: Facts) -> StateMeasurement | None:
    """The first state, from the input on, with an entry that is NaN or infinite."""
    return next((state for state in facts.measurements.states if broken(state)), None)


def last_broken_derivative(facts: Facts) -> int | None:
    """The step nearest to the output with a gain that is not finite: gradients meet it first."""
    gains = {step.index: step.rms_gain.value for step in facts.measurements.steps}
    return max((index for index, gain in gains.items() if gain is not None and not math.isfinite(gain)), default=None)


def blows_up(facts: Facts) -> bool:
    """A differential equation left the numbers: its last state is finite, the derivative that led there is not."""
    flow = facts.measurements.flow
    return flow is not None and flow.outcome != CONVERGED and last_broken_derivative(facts) == facts.depth - 1


def broken(state: StateMeasurement) -> bool:
    """Some entry of the state is NaN or infinite."""
    share = state.nonfinite_fraction.value
    if share is not None and not share <= 0:
        return True
    return any(e.value is not None and not math.isfinite(e.value) for e in (state.rms, state.max_abs))
