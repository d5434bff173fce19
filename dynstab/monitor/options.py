"""What a monitor can be asked for, checked before a training begins: a typing error must not show at step 1000."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from dynstab.core.errors import ConfigError
from dynstab.core.run import Incident
from dynstab.monitor.probe import Loss
from dynstab.monitor.sinks import Sink
from dynstab.systems.optimizers import unwrapped


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `dynstab.Monitor` was asked for; the names are those of its arguments.

    Raises:
        ConfigError: an option that cannot be served.
    """

    probe: Any
    every: int
    run: str | os.PathLike[str] | None
    sinks: Sequence[str | Sink]
    optimizer: Optimizer | None
    loss_fn: Loss | None
    sharpness_every: int | None
    on_flag: Callable[[Incident], object] | None
    inputs: int
    k: int
    share: float | None
    seed: int

    def __post_init__(self) -> None:
        for name in ("every", "inputs", "k", "sharpness_every"):
            value: Any = getattr(self, name)
            if name == "sharpness_every" and value is None:
                continue
            if not _is_whole(value) or value < 1:
                raise ConfigError(f"{name}={value!r}", expected="a whole number from 1 up")
        if not _is_whole(self.seed):
            raise ConfigError(f"seed={self.seed!r}", expected="a whole number")
        if self.share is not None and not (_is_number(self.share) and 0 < self.share <= 1):
            raise ConfigError(
                f"share={self.share!r}", expected="a part of the training time, above 0 and up to 1; None for no limit"
            )
        for name in ("loss_fn", "on_flag"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise ConfigError(f"{name}={value!r}", expected="a function, or None")
        if isinstance(self.sinks, str) or not isinstance(self.sinks, Sequence):
            raise ConfigError(f"sinks={self.sinks!r}", expected="a list of them", remedy='sinks=["tensorboard"]')
        if self.run is not None and not isinstance(self.run, (str, os.PathLike)):
            raise ConfigError(f"run={self.run!r}", expected="the path of a file, or None")
        self._check_sharpness()

    def _check_sharpness(self) -> None:
        if self.loss_fn is None:
            if self.sharpness_every is not None:
                raise ConfigError(
                    f"sharpness_every={self.sharpness_every} without loss_fn",
                    remedy="give the loss whose sharpness it is",
                )
            return
        if self.probe is None:
            raise ConfigError("loss_fn without a probe", remedy="give the batch on which the sharpness is measured")
        if self.steps_between_sharpness < self.every:
            raise ConfigError(
                f"sharpness_every={self.sharpness_every} with every={self.every}",
                expected="sharpness_every of at least every, since the sharpness is measured together with a probe",
                remedy=f"probe more often too, by every={self.sharpness_every}",
            )

    @property
    def steps_between_probes(self) -> int:
        """0 for never."""
        return 0 if self.probe is None else self.every

    @property
    def steps_between_sharpness(self) -> int:
        """0 for never."""
        return 0 if self.loss_fn is None else self.sharpness_every or 10 * self.every


def checked_model(model: nn.Module) -> nn.Module:
    """The model itself.

    Raises:
        ConfigError: it is none, or one that cannot be listened to.
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(f"a model of type {type(model).__name__}", expected="the torch.nn.Module that is trained")
    if isinstance(model, torch.jit.ScriptModule):
        raise ConfigError("a TorchScript module, which takes no hooks", expected="the module that it was made from")
    if any(map(is_lazy, model.parameters())):
        raise ConfigError(
            "a model with lazy layers whose sizes are not known yet",
            expected="one that has seen an input",
            remedy="call it once on a batch before the monitor is made",
        )
    return model


def checked_loss(loss: Tensor | float | None) -> Tensor | float | None:
    """The loss of a step: a tensor as it is, anything else as a plain number.

    Raises:
        ConfigError: it is no number.
    """
    if loss is None or (isinstance(loss, Tensor) and loss.numel() and not loss.is_complex()):
        return loss
    if isinstance(loss, Tensor) or not _is_number(loss):
        got = f"a tensor of shape {tuple(loss.shape)}, {loss.dtype}" if isinstance(loss, Tensor) else repr(loss)
        raise ConfigError(f"loss={got}", expected="the loss of the step, a tensor with one entry or a number, or None")
    return float(loss)


def checked_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a checkpoint.

    Raises:
        ConfigError: it is not what `Monitor.state_dict` gives.
    """
    if not isinstance(state, Mapping) or not _is_whole(state.get("step")):
        raise ConfigError(f"the state {state!r}", expected="what Monitor.state_dict() gave")
    return dict(state)


def checked_optimizer(optimizer: Optimizer | None) -> Optimizer | None:
    """The optimizer whose hooks are called: a wrapper such as accelerate's has none of its own.

    Raises:
        ConfigError: it is none, or there are several.
    """
    if optimizer is None:
        return None
    if not isinstance(optimizer, Optimizer):
        many = isinstance(optimizer, (list, tuple))
        raise ConfigError(
            f"an optimizer of type {type(optimizer).__name__}",
            expected="one torch.optim.Optimizer, or None",
            remedy="leave it out, or give each optimizer's module a monitor of its own" if many else "",
        )
    return unwrapped(optimizer)


def _is_whole(value: Any) -> bool:
    """An int of Python, NumPy or torch."""
    try:
        index(value)
    except (TypeError, ValueError, RuntimeError):
        return False
    return not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    """What turns into a float; a text that reads like one does not count."""
    try:
        float(value)
    except (TypeError, ValueError, RuntimeError):
        return False
    return not isinstance(value, (str, bytes))
