"""The cheap signals of every training step, taken without making the device wait."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from dynstab.core.run import Signal
from dynstab.monitor.distributed import Processes
from dynstab.monitor.listening import Heard, Listener
from dynstab.monitor.places import audible, find_blocks, find_groups
from dynstab.monitor.readout import Readout
from dynstab.monitor.weights import GradientNorms, WeightSample

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
        self._at_step: Tensor | None = None
        self._handle = optimizer.register_step_pre_hook(self._before_step) if optimizer is not None else None
        self.listener = Listener(places)

    def close(self) -> None:
        """Take all hooks away; a second time does nothing."""
        self.listener.close()
        if self._handle is not None:
            self._handle.remove()

    def take(self, step: int, seconds: float, loss: Tensor | float | None) -> Pending:
        """The signals since the last call."""
        gradients = self._at_step if self._at_step is not None else self._gradients()
        self._at_step = None
        moves = self._weights.norms()
        update, weight = (None, None) if moves is None else moves
        forward, backward = self.listener.take()
        silent = not any(heard.entries for heard in forward)
        return Pending(
            known={"step": step, "seconds": seconds},
            absent=silent and gradients is None and bool(self.places),
            places={"activation_rms": forward, "gradient_rms": backward},
            groups={"gradient_norm": gradients, "update_norm": update, "weight_norm": weight},
            numbers={"loss": loss, "learning_rate": self._learning_rate()},
            group_count=len(self.groups),
        )

    def _learning_rate(self) -> Tensor | float | None:
        return None if self._optimizer is None else self._optimizer.param_groups[0].get("lr")

    def _before_step(self, _: Optimizer, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        # A closure makes the gradients within the step, and they are read after it; now they are the last step's.
        closure = args[1] if len(args) > 1 else named.get("closure")
        try:
            self._at_step = None if closure is not None else self._gradients()
        except Exception:  # this runs within the optimizer's step, which must not fail for it
            _LOG.exception("gradients are not read any more; training goes on")
            self.close()


class Pending:
    """A signal whose numbers may still be on their way from the device.

    Args:
        known: fields that are there. places, groups, numbers: fields that come, and what they come from.

    Attributes:
        absent: the hooks listened, and there was no forward pass and no gradient.
    """

    def __init__(
        self,
        *,
        known: dict[str, Any],
        absent: bool,
        places: dict[str, list[Heard]],
        groups: dict[str, Tensor | None],
        numbers: dict[str, Tensor | float | None],
        group_count: int,
    ) -> None:
        self._fields, self._places, self._group_count = dict(known), places, group_count
        self._taken = {name: tensor for name, tensor in groups.items() if tensor is not None}
        self._untaken = [name for name, tensor in groups.items() if tensor is None]
        self._single = [name for name, number in numbers.items() if isinstance(number, Tensor)]
        self._fields |= {n: v if v is None else float(v) for n, v in numbers.items() if n not in self._single}
        scalars = [_scalar(numbers[name]) for name in self._single]  # type: ignore[arg-type]
        self.absent = absent
        self._readout = Readout([*_numbers(places), *scalars], list(self._taken.values()))

    @property
    def ready(self) -> bool:
        """Whether `signal` answers without waiting."""
        return self._readout.ready

    def signal(self) -> Signal:
        """The record; waits for the device where it must."""
        values = iter(self._readout.values())
        fields = dict(self._fields)
        for name, heard in self._places.items():
            read = [_rms(each, values) for each in heard]
            fields[name] = tuple(rms for rms, _ in read)
            if name == "activation_rms":
                fields["nonfinite_fraction"] = tuple(fraction for _, fraction in read)
        fields |= {name: next(values) for name in self._single}
        fields |= {name: tuple(next(values) for _ in range(self._group_count)) for name in self._taken}
        fields |= {name: (math.nan,) * self._group_count for name in self._untaken}
        return Signal(**fields)


def _scalar(number: Tensor) -> Tensor:
    return number.detach().reshape(()) if number.numel() == 1 else number.detach().float().mean()


def _numbers(places: dict[str, list[Heard]]) -> Iterator[Tensor]:
    """What is still on the device, in the order in which `_rms` asks for it."""
    for heard in (each for listed in places.values() for each in listed):
        yield from (number for number in (*heard.norms, *heard.bad) if isinstance(number, Tensor))


def _rms(heard: Heard, values: Iterator[float]) -> tuple[float, float]:
    """RMS over all that passed a place, and the fraction that was not finite; NaN where nothing did."""
    norms = [next(values) if isinstance(norm, Tensor) else norm for norm in heard.norms]
    bad = [next(values) if isinstance(count, Tensor) else count for count in heard.bad]
    entries = sum(heard.entries)
    return (math.hypot(*norms) / math.sqrt(entries), sum(bad) / entries) if entries else (math.nan, math.nan)
