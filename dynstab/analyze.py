"""The pipeline, from top to bottom: a model and inputs -> system -> measurements -> flags -> report."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor, nn

import dynstab
from dynstab.core.config import Config
from dynstab.core.errors import ConfigError, StateError
from dynstab.core.flag import Verdict
from dynstab.core.inspection import Cost, Inspection
from dynstab.core.measurements import Measurements
from dynstab.core.progress import NullProgress, Progress
from dynstab.core.report import Check, ModelInfo, Provenance, Report, StateInfo, StepInfo, SystemInfo
from dynstab.diagnostics import Facts, diagnose, verdict
from dynstab.loading import Inputs, LoadedModel, as_inputs, infer_inputs
from dynstab.measures import measure, planned_products
from dynstab.systems.depth import DepthSystem, depth_system
from dynstab.systems.loss import loss_cotangent
from dynstab.systems.trajectory import Trajectory

MADE_UP_INPUTS = 8
_LARGE_STATE = 512  # entries for one input; beyond it, spectral work is done for fewer inputs
_REFERENCE_INPUTS = {"quick": 1, "standard": 1, "thorough": 2}


def analyze(
    model: nn.Module | LoadedModel,
    inputs: Any = None,
    *,
    config: Config | None = None,
    loss: Callable[[Any], Tensor] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Measure and judge the stability of a network through its depth.

    Args:
        model: a module, or what `dynstab.load` answered. It comes back as it was.
        inputs: a tensor, a tuple of positional or a dict of keyword arguments; made up where None.
        loss: a function of what forward returns, for the gradient of that loss instead of isotropic cotangents.

    Raises:
        InputError: the model rejects the inputs, or none could be made up.
        CaptureError: the model cannot be traced. ConfigError: an option cannot be served.
    """
    config, progress, started = config or Config(), progress or NullProgress(), time.perf_counter()
    subject = _subject(model, inputs, config)
    system: DepthSystem | None = None
    try:
        with progress.stage("capture and verify"):
            system = subject.system()
            reference = subject.reference(system.trajectory)
    except StateError as error:
        if config.states:
            raise
        return _nothing_to_measure(subject, str(error), time.perf_counter() - started)
    cotangent = loss_cotangent(system.subject, system.output, loss) if loss else None
    measurements = measure(
        system.trajectory,
        config,
        reference=reference,
        cotangent=cotangent,
        training_dtype=subject.training_dtype,
        progress=progress,
    )
    return _report(subject, system, measurements, time.perf_counter() - started)


def inspect(model: nn.Module | LoadedModel, inputs: Any = None, *, config: Config | None = None) -> Inspection:
    """The states and steps that `analyze` would measure, and an estimate of what that costs.

    Raises:
        InputError, CaptureError, ConfigError: see `analyze`. StateError: nothing can be differentiated.
    """
    config = config or Config()
    subject = _subject(model, inputs, config)
    system = subject.system()
    return Inspection(
        model=subject.info(),
        system=_system_info(subject, system.trajectory),
        verification=system.checks,
        routes=system.trajectory.routes,
        effort=config.effort,
        cost=_cost(system, config),
    )


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """A loaded model with its inputs and the options that bear on capture."""

    loaded: LoadedModel
    inputs: Inputs
    config: Config
    dtype: torch.dtype | None
    device: torch.device | None

    def system(self, inputs: Inputs | None = None, *, verify: bool = True) -> DepthSystem:
        given = inputs or self.inputs
        return depth_system(
            self.loaded.module,
            given.args,
            given.kwargs,
            dtype=self.dtype,
            device=self.device,
            granularity=self.config.granularity,
            states=self.config.states,
            seed=self.config.seed,
            verify=verify,
        )

    def reference(self, trajectory: Trajectory) -> Trajectory | None:
        """The same system at fewer inputs, where the states are large and there are more."""
        fewer = _REFERENCE_INPUTS[self.config.effort]
        if trajectory.samples <= fewer or max(state.size for state in trajectory.states) <= _LARGE_STATE:
            return None
        dim = trajectory.states[0].layout.sample_dims[0]
        few = first_inputs(self.inputs, fewer, trajectory.samples, dim)
        return self.system(few, verify=False).trajectory

    @property
    def training_dtype(self) -> torch.dtype:
        """The dtype of most of the model's parameters."""
        counts: dict[torch.dtype, int] = {}
        for parameter in self.loaded.module.parameters():
            if parameter.is_floating_point():
                counts[parameter.dtype] = counts.get(parameter.dtype, 0) + parameter.numel()
        return max(counts, key=lambda dtype: counts[dtype], default=torch.float32)

    def info(self) -> ModelInfo:
        module = self.loaded.module
        return ModelInfo(
            source=self.loaded.source,
            format=self.loaded.format,
            class_name=type(module).__name__,
            parameters=sum(parameter.numel() for parameter in module.parameters()),
            trusted=self.loaded.trusted,
            dtype=_name(self.training_dtype),
        )


def _subject(model: nn.Module | LoadedModel, inputs: Any, config: Config) -> _Subject:
    if config.system not in ("auto", "depth"):
        raise ConfigError(
            f"system {config.system!r} is not read by analyze",
            expected="auto or depth",
            remedy="dynstab.lyapunov_spectrum measures a step function over time",
        )
    if isinstance(model, nn.Module):
        model = LoadedModel(module=model, source=type(model).__name__, format="module", trusted=True)
    if inputs is not None:
        given = as_inputs(inputs)
    else:
        given = infer_inputs(model, samples=config.samples or MADE_UP_INPUTS, seed=config.seed)
    if config.samples is not None:
        given = first_inputs(given, config.samples, _batch(given), 0)
    half = {parameter.dtype for parameter in model.module.parameters()} & {torch.float16, torch.bfloat16}
    dtype = getattr(torch, config.dtype) if config.dtype else torch.float32 if half else None
    return _Subject(loaded=model, inputs=given, config=config, dtype=dtype, device=_device(config.device))


def _device(name: str) -> torch.device | None:
    """The device of the analysis, None for where the model is.

    Raises:
        ConfigError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda") if torch.cuda.is_available() else None
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {name!r}", expected="auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device {name!r}", expected="auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {name!r}, but this torch sees no CUDA device", remedy="use --device cpu")
    return device


def _batch(inputs: Inputs) -> int | None:
    sizes = {t.shape[0] for t in _tensors(inputs) if t.ndim}
    return sizes.pop() if len(sizes) == 1 else None


def _tensors(inputs: Inputs) -> list[Tensor]:
    leaves = torch.utils._pytree.tree_leaves((inputs.args, inputs.kwargs))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def first_inputs(inputs: Inputs, count: int, batch: int | None, dim: int) -> Inputs:
    """The first `count` of `batch` inputs, counted along `dim` of every tensor that has that many there."""
    if batch is None or count >= batch:
        return inputs

    def first(leaf: Any) -> Any:
        counts = isinstance(leaf, Tensor) and leaf.ndim > dim and leaf.shape[dim] == batch
        return leaf.narrow(dim, 0, count) if counts else leaf

    args, kwargs = torch.utils._pytree.tree_map(first, (inputs.args, inputs.kwargs))
    return Inputs(args=args, kwargs=kwargs, description=inputs.description, made_up=inputs.made_up)


def _report(subject: _Subject, system: DepthSystem, measurements: Measurements, seconds: float) -> Report:
    trajectory = system.trajectory
    first = trajectory.states[0].value[0]
    provenance = _provenance(subject, first, seconds, bool(measurements.partial)).model_copy(
        update={
            "products": sum(getattr(step.jacobian, "products", 0) for step in trajectory.steps),
            "samples": trajectory.samples,
            "routes": trajectory.routes,
        }
    )
    return _judged(subject, provenance, _system_info(subject, trajectory), system.checks, measurements)


def _nothing_to_measure(subject: _Subject, reason: str, seconds: float) -> Report:
    """A report that says why there is nothing to measure."""
    system = SystemInfo(
        kind="depth", time_unit="step", inputs=subject.inputs.description, states=(), steps=(), notes=(reason,)
    )
    first = next(iter(subject.loaded.module.parameters()), torch.zeros(()))
    return _judged(subject, _provenance(subject, first, seconds, False), system, (), Measurements())


def _judged(
    subject: _Subject,
    provenance: Provenance,
    system: SystemInfo,
    checks: tuple[Check, ...],
    measurements: Measurements,
) -> Report:
    config = subject.config
    blank = Verdict(kind="inconclusive", summary="not judged yet", confidence="low")
    report = Report(
        provenance=provenance,
        model=subject.info(),
        verification=checks,
        system=system,
        measurements=measurements,
        flags=(),
        verdict=blank,
    )
    facts = Facts.of(report)
    flags = diagnose(facts, select=config.select, ignore=config.ignore)
    return report.model_copy(update={"flags": flags, "verdict": verdict(facts, flags)})


def _provenance(subject: _Subject, tensor: Tensor, seconds: float, interrupted: bool) -> Provenance:
    return Provenance(
        dynstab=dynstab.__version__,
        torch=torch.__version__,
        device=str(tensor.device),
        dtype=_name(subject.dtype or tensor.dtype),
        seed=subject.config.seed,
        config=subject.config,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(seconds, 3),
        products=0,
        interrupted=interrupted,
    )


def _system_info(subject: _Subject, trajectory: Trajectory) -> SystemInfo:
    states = tuple(
        StateInfo(
            index=state.index,
            name=state.name,
            shape=tuple(state.value[0].shape),
            size=state.size,
            tokens=None if state.token_dim is None else state.value[0].shape[state.token_dim],
        )
        for state in trajectory.states
    )
    steps = tuple(
        StepInfo(
            index=step.index,
            name=step.name,
            kind=step.kind,
            source=step.source,
            target=step.target,
            residual_coefficient=step.residual_coefficient,
            block=step.block,
            parameters=sum(parameter.numel() for parameter in step.parameters),
        )
        for step in trajectory.steps
    )
    return SystemInfo(
        kind=trajectory.kind,
        time_unit=trajectory.time_unit,
        inputs=subject.inputs.description,
        states=states,
        steps=steps,
        rung=trajectory.rung,
        notes=(*subject.loaded.notes, *trajectory.notes),
    )


def _cost(system: DepthSystem, config: Config) -> Cost:
    """One tangent through all steps, timed, times the products that the effort plans."""
    trajectory = system.trajectory
    tangents = tuple(torch.randn_like(t).unsqueeze(0) for t in trajectory.states[0].value)
    seconds: list[float] = []
    for _ in range(3):  # the first run linearises; the fastest counts
        started, moving = time.perf_counter(), tangents
        for step in trajectory.steps:
            moving = step.jacobian.push_tensors(moving)  # type: ignore[attr-defined]
        seconds.append(time.perf_counter() - started)
    each = min(seconds) / trajectory.samples
    products = planned_products(trajectory, config)
    tapes = [step.jacobian for step in trajectory.steps]
    return Cost(
        products=products,
        seconds_per_product=each,
        seconds=each * products,
        bytes_per_tangent=max((tape.bytes_per_tangent for tape in tapes), default=0),  # type: ignore[attr-defined]
        recorded_bytes=sum(t.nbytes for state in trajectory.states for t in state.value),
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
