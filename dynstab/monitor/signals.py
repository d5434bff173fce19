"""The cheap signals of every training step, taken without making the device wait."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from operator import is_
from typing import Any
from weakref import ref

from torch import Tensor, nn
from torch.optim import Optimizer

from dynstab.capture.capture import unwrap
from dynstab.monitor.attendance import Attendance
from dynstab.monitor.distributed import Processes
from dynstab.monitor.listening import Listener
from dynstab.monitor.pending import GROUPS, PLACES, Carried, Pending
from dynstab.monitor.places import Group, Place, audible, find_blocks, find_groups
from dynstab.monitor.weights import GradientNorms, Parts, WeightSample

_LOG = logging.getLogger("dynstab.monitor")

_LOOK_EVERY = 16
"""Steps of which one looks whether the model still has the parameters that are followed."""


class Signals:
    """What is listened to at every step.

    Args:
        optimizer: gradients are then taken when it steps, before a loop can clear them, and the learning rate is known.

    Attributes:
        places, groups: their names. attendance: whether model and optimizer take part in the training.
    """

    def __init__(self, model: nn.Module, processes: Processes, optimizer: Optimizer | None = None) -> None:
        # Whoever keeps the hooks must not keep the model, and with it whatever knows the monitor.
        self._model, self._processes, self._optimizer = ref(model), processes, optimizer
        if optimizer is not None and not processes.sharded and not _moves(optimizer, model):
            _LOG.warning(
                "the optimizer that the monitor was given holds none of the model's parameters: is it another model's?"
            )
        places, groups = _found(model)
        self.places, self.groups = _names(places), _names(groups)
        self.attendance = Attendance()
        self._taken, self._at_step = 0, None
        self._stepped, self._rate = False, None
        self._carried: Carried = {
            **dict.fromkeys(PLACES, (math.nan,) * len(places)),
            **dict.fromkeys(GROUPS, (math.nan,) * len(groups)),
        }
        self._handle = optimizer.register_step_pre_hook(self._before_step) if optimizer is not None else None
        self._follow(model, places, groups)

    def _follow(self, model: nn.Module, places: tuple[Place, ...], groups: tuple[Group, ...]) -> None:
        self._gradients = GradientNorms(groups, self._processes.norms)
        self._weights = WeightSample(groups, self._processes.norms)
        self._listener = Listener(places)
        self._parameters = list(unwrap(model).parameters())

    def close(self) -> None:
        """Take all hooks away; a second time does nothing."""
        self._listener.close()
        if self._handle is not None:
            self._handle.remove()

    @contextmanager
    def unheard(self) -> Iterator[None]:
        """The hooks do not hear what happens within."""
        self._listener.muted = True
        try:
            yield
        finally:
            self._listener.muted = False

    def take(self, step: int, seconds: float, loss: Tensor | float | None) -> Pending:
        """The signals since the last call."""
        gradients: Parts | None = self._at_step or self._gradients(self._taken)
        update, weight = self._weights.norms(self._taken) or (None, None)
        optimizer, stepped, rate = self._optimizer, self._stepped, self._rate
        self._taken, self._at_step, self._stepped, self._rate = self._taken + 1, None, False, None
        pending = Pending(
            {"step": step, "seconds": seconds},
            heard=self._listener.take(),
            # A model that is no longer trained keeps the gradients of its last step.
            groups=dict(zip(GROUPS, (None if self.attendance.absent else gradients, update, weight), strict=True)),
            loss=loss,
            rate=rate if stepped or optimizer is None else _rate(optimizer),
            stepped=None if optimizer is None else stepped,
            carried=self._carried,
            attendance=self.attendance,
        )
        if self._taken % _LOOK_EVERY == 0:
            self._look(step)
        return pending

    def _before_step(self, optimizer: Optimizer, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        # A closure makes the gradients within the step, and they are read after it; now they are the last step's.
        closure = args[1] if len(args) > 1 else named.get("closure")
        try:
            # After it, a scheduler may have set the rate of the next one already.
            self._stepped, self._rate = True, _rate(optimizer)
            self._at_step = None if closure is not None else self._gradients(self._taken)
        except Exception:  # this runs within the optimizer's step, which must not fail for it
            _LOG.exception("gradients are not read any more; training goes on")
            self.close()

    def _look(self, step: int) -> None:
        """Layers that took the place of others are followed from now on, where they fit."""
        model = self._model()
        # Shards and whole parameters take each other's place while `fully_shard` works.
        if model is None or self._processes.sharded:
            return
        before, now = self._parameters, list(unwrap(model).parameters())
        if len(now) == len(before) and all(map(is_, now, before)):
            return
        known = set(map(id, before))
        new = next((f" ({name})" for name, p in unwrap(model).named_parameters() if id(p) not in known), "")
        places, groups = _found(model)
        if (_names(places), _names(groups)) != (self.places, self.groups):
            self._parameters = now
            _LOG.warning(
                "the model has other blocks than when the run began%s, seen at step %d: signals are those of the "
                "parameters that it had then; begin a new Monitor for the new model",
                new,
                step,
            )
            return
        self._listener.close()
        self._follow(model, places, groups)
        _LOG.warning(
            "parameters of the model were replaced%s, seen at step %d: the new ones are followed from now on; "
            "does the optimizer know them?",
            new,
            step,
        )


def _moves(optimizer: Optimizer, model: nn.Module) -> bool:
    held = set(map(id, unwrap(model).parameters()))
    return any(id(parameter) in held for group in optimizer.param_groups for parameter in group["params"])


def _found(model: nn.Module) -> tuple[tuple[Place, ...], tuple[Group, ...]]:
    blocks = find_blocks(model)
    return audible(blocks), find_groups(model, blocks)


def _names(found: tuple[Place, ...] | tuple[Group, ...]) -> tuple[str, ...]:
    return tuple(each.name for each in found)


def _rate(optimizer: Optimizer) -> Tensor | float | None:
    """Of its first group, as it is now: a scheduler writes into the tensor of a rate that is one."""
    rate = optimizer.param_groups[0].get("lr")
    return rate.detach().clone() if isinstance(rate, Tensor) else rate
