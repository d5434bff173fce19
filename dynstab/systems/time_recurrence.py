"""A recurrence, h_{t+1} = step(h_t, x_t), however the model wrote it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dynstab.linear.driven import DrivenStep, Tensors

HELD_STEPS = 2000
"""How long a map without a sequence of inputs is followed."""


@dataclass(frozen=True, kw_only=True)
class Recurrence:
    """A step with its start and what drives it.

    Attributes:
        name: of the module that steps. step: (state, inputs of one time) -> state, pure.
        start: h_0. inputs: what drives it, each with time first; a single time is held for all steps.
        length: steps that the model itself takes. after: steps more that tell where it tends to.
        sample_dim: of the state's tensors, None where they are one state.
        expected: the states that the model itself had, by time (from 1 on), for verification.
        gates: names of the sigmoids of one step in their order, where known.
        notes: for the report.
    """

    name: str
    step: DrivenStep
    start: Tensors
    inputs: Tensors = ()
    length: int
    after: int = 0
    sample_dim: int | None = 0
    expected: Mapping[int, Tensors] | None = None
    gates: tuple[str, ...] = ()
    parameters: Tensors = ()
    notes: tuple[str, ...] = ()

    @property
    def held(self) -> bool:
        """The same input at every step, or none: then the recurrence is a map of its state alone. One step of a
        sequence does not tell."""
        same = all(len(sequence) == 1 or bool((sequence == sequence[:1]).all()) for sequence in self.inputs)
        return not self.inputs or (same and self.length + self.after > 1)

    def at(self, time: int) -> Tensors:
        """The inputs of one step."""
        return tuple(sequence[time if len(sequence) > time else -1] for sequence in self.inputs)

    def ending(self, run: Sequence[Tensors]) -> tuple[str, ...]:
        """In words, why a run is shorter than it was to be; nothing where it is not."""
        last = len(run) - 1
        if finite(run[last]):
            return ()
        if not finite(run[0]):
            return ("the first state is not finite",)
        what = "a state is not finite" if finite(self.at(last - 1)) else "the input is not finite"
        return (f"the run ends at t={last} of {self.length + self.after}, where {what}",)


def finite(tensors: Tensors) -> bool:
    """Whether all their entries are."""
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


class Bound:
    """A module with its parameters in the dtype and on the device of the analysis, as a function."""

    def __init__(self, module: nn.Module, dtype: torch.dtype | None, device: torch.device | None) -> None:
        self.module, self.dtype, self.device = module, dtype, device
        self.values = {name: self.cast(tensor) for name, tensor in module.named_parameters()}
        # A step may write into its buffers, long after the model was handed back.
        self.values |= {name: self.cast(tensor).clone() for name, tensor in module.named_buffers()}

    def cast(self, tensor: Tensor) -> Tensor:
        tensor = tensor.detach()
        if self.dtype is not None and tensor.is_floating_point():
            tensor = tensor.to(self.dtype)
        elif self.dtype is not None and tensor.is_complex():
            tensor = tensor.to(self.dtype.to_complex())
        return tensor if self.device is None else tensor.to(self.device)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return functional_call(self.module, self.values, args, kwargs)

    def part(self, path: str) -> Bound:
        """A submodule bound to the same values."""
        inner = object.__new__(Bound)
        inner.module, inner.dtype, inner.device = self.module.get_submodule(path), self.dtype, self.device
        prefix = f"{path}." if path else ""
        inner.values = {k.removeprefix(prefix): v for k, v in self.values.items() if k.startswith(prefix)}
        return inner

    @property
    def parameters(self) -> Tensors:
        """The learned ones, as the module holds them."""
        return tuple(self.module.parameters())

    @property
    def float_dtype(self) -> torch.dtype:
        """Of its own floating-point values, float32 where it has none."""
        floats = (value.dtype for value in self.values.values() if value.is_floating_point())
        return self.dtype or next(floats, torch.get_default_dtype())

    @property
    def place(self) -> torch.device:
        return self.device or next((value.device for value in self.values.values()), torch.device("cpu"))
