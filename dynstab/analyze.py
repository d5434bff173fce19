"""The pipeline, from top to bottom: a model and inputs -> system -> measurements -> flags -> report."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor, nn

import dynstab
from dynstab.capture.isolate import random_states_kept
from dynstab.core.config import Config
from dynstab.core.errors import ConfigError, StateError
from dynstab.core.inspection import Inspection
from dynstab.core.measurements import Measurements
from dynstab.core.progress import NullProgress, Progress
from dynstab.core.report import Provenance, Report, SystemInfo
from dynstab.diagnostics import judged
from dynstab.loading import LoadedModel
from dynstab.measures import measure
from dynstab.measures.cost import estimate_cost
from dynstab.systems.depth import DepthSystem
from dynstab.systems.describe import system_info
from dynstab.systems.loss import loss_cotangent
from dynstab.systems.trajectory import System, Trajectory
from dynstab.target import Target, target_of


@random_states_kept()
def analyze(
    model: nn.Module | LoadedModel,
    inputs: Any = None,
    *,
    config: Config | None = None,
    loss: Callable[[Any], Tensor] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Measure and judge the stability of a network through its depth, of a recurrence or a flow through time.

    The model is analysed in eval mode, whatever its mode: BatchNorm by its running statistics, dropout off.

    Args:
        model: a module, or what `dynstab.load` answered. It comes back as it was.
        inputs: a tensor, a tuple of positional or a dict of keyword arguments; made up where None.
        loss: a function of what forward returns, for the gradient of that loss instead of isotropic cotangents.

    Raises:
        InputError: the model rejects the inputs, or none could be made up.
        CaptureError: the model cannot be traced. ConfigError: an option cannot be served.
    """
    config, progress, started = config or Config(), progress or NullProgress(), time.perf_counter()
    target = target_of(model, inputs, config)
    try:
        with progress.stage("capture and verify"):
            system = target.system()
            reference = target.reference(system.trajectory)
    except StateError as error:
        if config.states:
            raise
        return _nothing_to_measure(target, str(error), started)
    cotangent = _cotangent(system, loss) if loss else None
    measurements = measure(
        system.trajectory,
        config,
        reference=reference,
        cotangent=cotangent,
        training_dtype=target.training_dtype,
        progress=progress,
    )
    trajectories = [each for each in (system.trajectory, reference, system.trajectory.whole) if each is not None]
    provenance = _provenance(target, trajectories, started, measurements)
    return judged(
        provenance=provenance,
        model=target.info(),
        verification=system.checks,
        system=_described(target, system),
        measurements=measurements,
    )


@random_states_kept()
def inspect(model: nn.Module | LoadedModel, inputs: Any = None, *, config: Config | None = None) -> Inspection:
    """The states and steps that `analyze` would measure, and an estimate of what that costs.

    Raises:
        InputError, CaptureError, ConfigError: see `analyze`. StateError: nothing can be differentiated.
    """
    config = config or Config()
    target = target_of(model, inputs, config)
    system = target.system()
    return Inspection(
        model=target.info(),
        system=_described(target, system),
        verification=system.checks,
        routes=system.trajectory.routes,
        effort=config.effort,
        cost=estimate_cost(system.trajectory, config),
    )


def _cotangent(system: System, loss: Callable[[Any], Tensor]) -> tuple[Tensor, ...]:
    if not isinstance(system, DepthSystem):
        raise ConfigError(f"a loss for a system over {system.trajectory.kind}", expected="a system over depth")
    return loss_cotangent(system, loss)


def _described(target: Target, system: System) -> SystemInfo:
    return system_info(system.trajectory, target.inputs.description, target.notes)


def _nothing_to_measure(target: Target, reason: str, started: float) -> Report:
    """A report that says why there is nothing to measure."""
    kind = "depth" if target.config.system == "auto" else target.config.system
    nothing = Trajectory(kind=kind, states=(), steps=(), notes=(reason,))
    system = system_info(nothing, target.inputs.description, target.notes)
    measurements = Measurements()
    return judged(
        provenance=_provenance(target, [nothing], started, measurements),
        model=target.info(),
        verification=(),
        system=system,
        measurements=measurements,
    )


def _provenance(
    target: Target, trajectories: list[Trajectory], started: float, measurements: Measurements
) -> Provenance:
    """How it was measured; `trajectories` are all inputs' and the spectral work's, maybe the same."""
    full, distinct = trajectories[0], {id(trajectory): trajectory for trajectory in trajectories}.values()
    device, dtype = target.device_and_dtype
    return Provenance(
        dynstab=dynstab.__version__,
        torch=torch.__version__,
        device=device,
        dtype=dtype,
        seed=target.config.seed,
        config=target.config,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.perf_counter() - started, 3),
        products=sum(step.jacobian.products for trajectory in distinct for step in trajectory.steps),
        samples=full.samples,
        routes=full.routes,
        interrupted=bool(measurements.partial),
    )
