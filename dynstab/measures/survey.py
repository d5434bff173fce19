"""What the measures share: the trajectory, the budget, the random draws and what was found so far."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from functools import partial as bound
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from dynstab.core.config import Config
from dynstab.core.estimate import Estimate
from dynstab.core.flow_dynamics import FlowDynamics
from dynstab.core.frozen import Frozen
from dynstab.core.measurements import (
    GradientFlow,
    Lyapunov,
    Measurements,
    NetworkMeasurement,
    StateMeasurement,
    StepMeasurement,
)
from dynstab.core.network_flow import NetworkFlow
from dynstab.core.structure import Structure
from dynstab.core.time_dynamics import TimeDynamics
from dynstab.core.training_dynamics import TrainingDynamics
from dynstab.estimators.result import Result
from dynstab.measures.effort import EFFORTS, DensePlan, Effort, plan_dense
from dynstab.measures.flow_profile import FlowProfile
from dynstab.measures.tokens import rms
from dynstab.systems.trajectory import Trajectory

_INTERRUPTED = "interrupted before it was measured"
_NO_STEPS = "the trajectory has no step"
_DECOMPOSED_IN_TIME = 16

R = TypeVar("R", bound=Frozen)
Place = Literal[
    "step", "state", "gradient", "lyapunov", "network", "time", "flow", "training", "structure", "network_flow"
]


class Finding(NamedTuple):
    """Values for the fields of one record of the Measurements; `index` counts steps or states, else 0."""

    place: Place
    index: int
    fields: dict[str, Any]


class Measure(NamedTuple):
    """A measure: `run` yields what it finds as it finds it, `units` says how many pieces of work that is, if known."""

    name: str
    run: Callable[[Survey], Iterator[Finding]]
    units: Callable[[Survey], int | None]


@dataclass(kw_only=True)
class Survey:
    """One run of all measures.

    Attributes:
        trajectory: gains, states and gradient flow are measured here, on all inputs.
        spectral: the same system at few inputs, for the expensive spectral work.
        cotangent: at the last state, where a loss gives one; else isotropic ones are drawn.
        training_dtype: the number format whose range limits the gradients.
        found: what was found, by place and index.
        flow: the gradient's profile per input, once it was measured.
        norms: of each step, the largest singular value per input, once it was measured.
        tick: told of work that is done between two findings.
    """

    trajectory: Trajectory
    spectral: Trajectory
    config: Config
    cotangent: tuple[Tensor, ...] | None = None
    training_dtype: torch.dtype | None = None
    found: dict[tuple[Place, int], dict[str, Any]] = field(default_factory=dict)
    flow: FlowProfile | None = None
    norms: dict[int, Result] = field(default_factory=dict)
    tick: Callable[[], None] = lambda: None

    @property
    def effort(self) -> Effort:
        return EFFORTS[self.config.effort]

    def seed(self, *labels: int) -> int:
        """A seed for one draw: equal labels give equal draws, different ones independent draws."""
        value = self.config.seed
        for label in labels:
            value = (value * 1_000_003 + label + 1) % (2**62)
        return value

    def decomposes(self, index: int) -> bool:
        """Whether a step's Jacobian is decomposed: every one of a network, and some of a recurrence, whose steps are
        one map at neighbouring states."""
        steps = len(self.trajectory.steps)
        return self.trajectory.kind != "time" or index % -(-steps // _DECOMPOSED_IN_TIME) == 0

    def record(self, finding: Finding) -> None:
        self.found.setdefault((finding.place, finding.index), {}).update(finding.fields)

    def estimate(self, place: Place, index: int, name: str) -> Estimate | None:
        """A number found before, None where there is none or it was not measured."""
        value = self.found.get((place, index), {}).get(name)
        return value if isinstance(value, Estimate) and value.measured else None

    @cached_property
    def sizes(self) -> Tensor:
        """Root mean square of every state, (inputs, states), float64."""
        return torch.stack([rms(state) for state in self.trajectory.states], dim=1)

    @property
    def log_relative_gain(self) -> Tensor:
        """ln of ||delta_l|| rms(h_l) / (||delta_L|| rms(h_L)), (inputs, states); needs `flow`."""
        assert self.flow is not None
        log_gain, scale = self.flow.log_gain, self.sizes.log()
        # A gradient that is zero is so on any scale, also where the last state is zero too.
        return (log_gain + scale - scale[:, -1:]).where(~log_gain.isneginf(), -torch.inf)

    @cached_property
    def plan(self) -> DensePlan:
        """What is formed at the inputs of the trajectory."""
        return plan_dense([step.jacobian for step in self.trajectory.steps], self.effort)

    @cached_property
    def matrices(self) -> tuple[Tensor | None, ...]:
        """The Jacobians at all inputs, (inputs, rows, cols) each, where they are formed, else None."""
        return _formed(self.trajectory, self.plan)

    @cached_property
    def spectral_matrices(self) -> tuple[Tensor | None, ...]:
        """The Jacobians whose spectra are wanted: at the spectral inputs, or as many of all inputs as is affordable."""
        if self.spectral is self.trajectory:
            plan, matrices = self.plan, self.matrices
        else:
            plan = plan_dense([step.jacobian for step in self.spectral.steps], self.effort)
            matrices = _formed(self.spectral, plan)
        return tuple(None if matrix is None else matrix[: plan.inputs] for matrix in matrices)

    @property
    def exact_flow(self) -> bool:
        """Whether every Jacobian is formed and may be decomposed at every input."""
        return self.plan.whole and self.plan.inputs == self.trajectory.samples

    def measurements(self, partial: tuple[str, ...] = ()) -> Measurements:
        """All that was found; where the run was cut short, what is missing says so."""
        steps, states = self.trajectory.steps, self.trajectory.states
        reason = _INTERRUPTED if partial else None if steps else _NO_STEPS
        record = bound(self._record, reason)
        return Measurements(
            steps=tuple(record(StepMeasurement, "step", i, index=i, name=s.name) for i, s in enumerate(steps)),
            states=tuple(record(StateMeasurement, "state", i, index=i, name=s.name) for i, s in enumerate(states)),
            gradient_flow=tuple(
                record(GradientFlow, "gradient", i, state=i, name=s.name) for i, s in enumerate(states if steps else ())
            ),
            lyapunov=record(Lyapunov, "lyapunov", 0),
            network=record(NetworkMeasurement, "network", 0),
            time=self._chapter(TimeDynamics, "time"),
            flow=self._chapter(FlowDynamics, "flow"),
            training=self._chapter(TrainingDynamics, "training"),
            structure=self._chapter(Structure, "structure"),
            network_flow=self._chapter(NetworkFlow, "network_flow"),
            partial=partial,
        )

    def _chapter(self, kind: type[R], place: Place) -> R | None:
        """What was found of a kind that only some systems have; None where nothing was."""
        found = self.found.get((place, 0))
        return None if found is None else kind(**found)

    def _record(self, reason: str | None, kind: type[R], place: Place, at: int, **identity: object) -> R:
        """What was found for one record; every other Estimate of it gives the reason, if there is one."""
        found = self.found.get((place, at), {}) | identity
        if reason is not None:
            names = (name for name, info in kind.model_fields.items() if info.annotation is Estimate)
            found = {name: Estimate.unmeasured(reason) for name in names} | found
        return kind(**found)


def _formed(trajectory: Trajectory, plan: DensePlan) -> tuple[Tensor | None, ...]:
    return tuple(
        step.jacobian.dense() if formed else None for step, formed in zip(trajectory.steps, plan.formed, strict=True)
    )
