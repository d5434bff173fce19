"""What an analysis is about: a model, its inputs, and the options that bear on capture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from dynstab.core.config import Config
from dynstab.core.errors import ConfigError, InputError
from dynstab.core.report import ModelInfo
from dynstab.loading import Inputs, LoadedModel, as_inputs, infer_inputs
from dynstab.loading.admissible import named_inputs, refuse_devices, refuse_module
from dynstab.systems.depth import batch_size
from dynstab.systems.modes import fresh_norms, mode_notes
from dynstab.systems.readings import reading_of
from dynstab.systems.trajectory import System, Trajectory

MADE_UP_INPUTS = 8
_LARGE_STATE = 512  # entries for one input; beyond it, spectral work is done for fewer inputs
_LARGE_STATE_IN_TIME = 64  # the same where a hundred steps are decomposed one by one
_REFERENCE_INPUTS = {"quick": 1, "standard": 1, "thorough": 2}


@dataclass(frozen=True, kw_only=True)
class Target:
    """A loaded model with its inputs and the options that bear on capture.

    Attributes:
        dtype, device: of the analysis; None is what the model has.
    """

    loaded: LoadedModel
    inputs: Inputs
    config: Config
    dtype: torch.dtype | None
    device: torch.device | None

    def system(self, inputs: Inputs | None = None, *, verify: bool = True) -> System:
        given = inputs or self.inputs
        module = self.loaded.module
        reading = reading_of(self.config.system, module, given.args, given.kwargs)
        options: dict[str, Any] = {}
        if self.config.linearisation == "backward":
            if reading.kind != "depth":
                raise ConfigError(f"linearisation 'backward' for a system of kind {reading.kind}", expected="depth")
            options["linearisation"] = "backward"
        return reading.make(
            module,
            given.args,
            given.kwargs,
            dtype=self.dtype,
            device=self.device,
            granularity=self.config.granularity,
            states=self.config.states,
            seed=self.config.seed,
            verify=verify,
            **options,
        )

    def reference(self, trajectory: Trajectory) -> Trajectory | None:
        """The same system at fewer inputs, where the states are large and there are more."""
        fewer = _REFERENCE_INPUTS[self.config.effort]
        limit = _LARGE_STATE_IN_TIME if trajectory.kind == "time" else _LARGE_STATE
        if trajectory.samples <= fewer or max(state.size for state in trajectory.states) <= limit:
            return None
        few = first_inputs(self.inputs, fewer, trajectory.samples, self._input_dim(trajectory))
        reference = self.system(few, verify=False).trajectory
        # A single input can look simpler (a mask with one entry is a number): then all inputs serve.
        alike = [state.size for state in reference.states] == [state.size for state in trajectory.states]
        return reference if alike else None

    def _input_dim(self, trajectory: Trajectory) -> int:
        """The dimension of the input tensors that counts inputs: as in the first state, but over time, where a
        state may have layers first and a sequence time first."""
        if trajectory.kind != "time":
            return trajectory.states[0].layout.sample_dims[0]
        shapes = [tensor.shape for tensor in _tensors(self.inputs)]
        counts = [all(len(shape) > dim and shape[dim] == trajectory.samples for shape in shapes) for dim in (0, 1)]
        return 1 if counts[1] and (_time_first(self.loaded.module, self.inputs) or not counts[0]) else 0

    @property
    def training_dtype(self) -> torch.dtype:
        """The dtype of most of the model's parameters."""
        counts: dict[torch.dtype, int] = {}
        for parameter in self.loaded.module.parameters():
            if parameter.is_floating_point():
                counts[parameter.dtype] = counts.get(parameter.dtype, 0) + parameter.numel()
        return max(counts, key=lambda dtype: counts[dtype], default=torch.float32)

    @property
    def device_and_dtype(self) -> tuple[str, str]:
        """In which the analysis computes, for the report."""
        held = (*self.loaded.module.parameters(), *_tensors(self.inputs))
        first = next((tensor for tensor in held if tensor.is_floating_point()), torch.zeros(()))
        return str(self.device or first.device), dtype_name(self.dtype or first.dtype)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know before the numbers: from loading, and from the state of the model."""
        return (*self.loaded.notes, *mode_notes(self.loaded.module))

    def info(self) -> ModelInfo:
        module = self.loaded.module
        return ModelInfo(
            source=self.loaded.source,
            format=self.loaded.format,
            class_name=type(module).__name__,
            parameters=sum(parameter.numel() for parameter in module.parameters()),
            trusted=self.loaded.trusted,
            dtype=dtype_name(self.training_dtype),
            fresh_norms=fresh_norms(module),
        )


def target_of(model: nn.Module | LoadedModel, inputs: Any, config: Config) -> Target:
    """What to analyse: loads nothing, makes inputs up where none are given.

    Raises:
        ConfigError: an option that cannot be served. InputError: inputs of a wrong type, or none could be made up.
    """
    if isinstance(model, nn.Module):
        model = LoadedModel(module=model, source=type(model).__name__, format="module", trusted=True)
    if not isinstance(model, LoadedModel):
        raise InputError(
            f"a model of type {type(model).__name__}",
            expected="a torch.nn.Module, or what dynstab.load answered",
            remedy="dynstab.load takes files, references and callables",
        )
    refuse_module(model.module, model.source)
    if inputs is not None:
        given = as_inputs(inputs)
    else:
        given = infer_inputs(model, samples=config.samples or MADE_UP_INPUTS, seed=config.seed)
    if not any(tensor.numel() for tensor in _tensors(given)):
        raise InputError("the inputs hold no number", expected="sizes from 1 up in every dimension")
    if config.samples is not None:
        dim = 1 if _time_first(model.module, given) else 0
        batch = batch_size(tensor.movedim(dim, 0) for tensor in _tensors(given) if tensor.ndim > dim)
        given = first_inputs(given, config.samples, batch, dim)
    half = {parameter.dtype for parameter in model.module.parameters()} & {torch.float16, torch.bfloat16}
    dtype = getattr(torch, config.dtype) if config.dtype else torch.float32 if half else None
    device = _device(config.device)
    if device is None:
        refuse_devices(model.module, named_inputs(given.args, given.kwargs))
    return Target(loaded=model, inputs=given, config=config, dtype=dtype, device=device)


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


def _time_first(module: nn.Module, inputs: Inputs) -> bool:
    """Whether the inputs are sequences with time first, as torch's recurrent layers and cells take them."""
    ranks = {tensor.ndim for tensor in _tensors(inputs)}
    if isinstance(module, nn.RNNCellBase):
        return 3 in ranks
    return isinstance(module, nn.RNNBase) and not module.batch_first and ranks == {3}


def _tensors(inputs: Inputs) -> list[Tensor]:
    leaves = pytree.tree_leaves((inputs.args, inputs.kwargs))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def first_inputs(inputs: Inputs, count: int, batch: int | None, dim: int) -> Inputs:
    """The first `count` of `batch` inputs, counted along `dim` of every tensor that has that many there."""
    if batch is None or count >= batch:
        return inputs

    def first(leaf: Any) -> Any:
        counts = isinstance(leaf, Tensor) and leaf.ndim > dim and leaf.shape[dim] == batch
        return leaf.narrow(dim, 0, count) if counts else leaf

    args, kwargs = pytree.tree_map(first, (inputs.args, inputs.kwargs))
    return Inputs(args=args, kwargs=kwargs, description=inputs.description, made_up=inputs.made_up)


def dtype_name(dtype: torch.dtype) -> str:
    """ "float32" for torch.float32."""
    return str(dtype).removeprefix("torch.")
