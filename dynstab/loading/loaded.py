"""What loading answers with: a module, where it came from, and example inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from dynstab.core.errors import InputError
from dynstab.loading.admissible import named_inputs, refuse_tensors


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The arguments of one forward pass.

    Attributes:
        args, kwargs: positional and keyword arguments.
        description: one line an argument, in the grammar of `--input` where dynstab drew it.
        made_up: dynstab chose them; False where the user or the file gave them.
    """

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    description: tuple[str, ...] = ()
    made_up: bool = False


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A module that can be called, with its origin.

    Attributes:
        source: the file, directory or reference, as the user wrote it.
        format: what it was by its content, e.g. "TorchScript".
        trusted: code that the file names was allowed to run.
        inputs: example inputs that came with it, None where none did.
        notes: what a reader of the report should know about the loading.
    """

    module: nn.Module
    source: str
    format: str
    trusted: bool = False
    inputs: Inputs | None = None
    notes: tuple[str, ...] = ()


def as_inputs(value: Any, *, origin: str = "given") -> Inputs:
    """Example inputs from a tensor, a tuple or list of positional, or a mapping of keyword arguments.

    Raises:
        InputError: it is none of these, holds no tensor, or one that is no dense array of numbers.
    """
    if isinstance(value, Inputs):
        return value
    if isinstance(value, Tensor):
        args, kwargs = (value,), {}
    elif isinstance(value, tuple | list):
        args, kwargs = tuple(value), {}
    elif isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        args, kwargs = (), dict(value)
    else:
        raise InputError(
            f"inputs of type {type(value).__name__}",
            expected="a tensor, a tuple of positional or a dict of keyword arguments",
        )
    named = [("", each) for each in args] + list(kwargs.items())
    if not any(isinstance(leaf, Tensor) for _, each in named for leaf in tree_leaves(each)):
        raise InputError("inputs without a tensor", expected="at least one tensor among the arguments")
    refuse_tensors(named_inputs(args, kwargs))
    description = tuple(f"{name + '=' if name else ''}{describe_value(each)} ({origin})" for name, each in named)
    return Inputs(args=args, kwargs=kwargs, description=description)


def describe_value(value: Any) -> str:
    """A value in a few words: "float32 (2, 3)" for a tensor, its type's name otherwise."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return type(value).__name__
