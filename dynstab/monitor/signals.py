"""The cheap signals of every training step, taken without making the device wait."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from dynstab.monitor.distributed import Processes
from dynstab.monitor.listening import Listener
from dynstab.monitor.pending import GROUPS, PLACES, Carried, Pending
from dynstab.monitor.places import audible, find_blocks, find_groups
from dynstab.monitor.weights import GradientNorms, Parts, WeightSample

_LOG = logging.getLogger("dynstab.monitor")


class Signals:
    """What is listened to at every step.

    Args:
        optimizer: gradients are then taken when it steps, before a loop can clear them, and the learning rate is known.

    Attributes:
        places, groups: their names.
    """

    def __init__(self, model: nn.Module, processes: Processes, optimizer: Optimizer | None = None) -> None:
        blocks = find_blocks(model)
        places, groups = audible(blocks), find_groups(model, blocks)
        self.places = tuple(place.name for place in places)
        self.groups = tuple(group.name for group in groups)
        self._gradients = GradientNorms(groups, processes.norms)
        self._weights = WeightSample(groups, processes.norms)
        self._optimizer = optimizer
        self._taken, self._at_step = 0, None
        self._carried: Carried = {
            **dict.fromkeys(PLACES, (math.nan,) * len(places)),
            **dict.fromkeys(GROUPS, (math.nan,) * len(groups)),
        }
        self._handle = optimizer.register_step_pre_hook(self._before_step) if optimizer is not None else None
        self._listener = Listener(places)

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
        self._taken, self._at_step = self._taken + 1, None
        return Pending(
            {"step": step, "seconds": seconds},
            heard=self._listener.take(),
            groups=dict(zip(GROUPS, (gradients, update, weight), strict=True)),
            loss=loss,
            rate=None if self._optimizer is None else self._optimizer.param_groups[0].get("lr"),
            carried=self._carried,
        )

    def _before_step(self, _: Optimizer, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        # A closure makes the gradients within the step, and they are read after it; now they are the last step's.
        closure = args[1] if len(args) > 1 else named.get("closure")
        try:
            self._at_step = None if closure is not None else self._gradients(self._taken)
        except Exception:  # this runs within the optimizer's step, which must not fail for it
            _LOG.exception("gradients are not read any more; training goes on")
            self.close()
