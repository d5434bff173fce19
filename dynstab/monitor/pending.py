"""A signal whose numbers may still be on their way from the device."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from torch import Tensor

from dynstab.capture.foreach import norms_of
from dynstab.core.run import Signal
from dynstab.monitor.attendance import Attendance
from dynstab.monitor.listening import Heard
from dynstab.monitor.readout import Readout
from dynstab.monitor.weights import Parts

PLACES = ("activation_rms", "gradient_rms", "nonfinite_fraction")
GROUPS = ("gradient_norm", "update_norm", "weight_norm")

Carried = dict[str, tuple[float, ...]]
"""By field, the numbers read last: of what takes turns, a part is read at each step."""


class Pending:
    """One step's signal. Signals are asked for in the order of their steps.

    Args:
        known: fields that are there. heard: forwards and backwards, by the index of the place, of those that were due.
        groups: fields of numbers for each group of parameters; None where none were taken. loss, rate: as given.
        stepped: whether the optimizer made a step; None without one.
        carried: what was read before, which is shared by all signals of a run and goes on with this one.
        attendance: is told who took part, as soon as the numbers are there.
    """

    def __init__(
        self,
        known: dict[str, Any],
        *,
        heard: Mapping[int, tuple[Heard, Heard | None]],
        groups: Mapping[str, Parts | None],
        loss: Tensor | float | None,
        rate: Tensor | float | None,
        stepped: bool | None,
        carried: Carried,
        attendance: Attendance,
    ) -> None:
        self._known, self._heard, self._groups, self._carried = known, heard, groups, carried
        self._stepped, self._attendance = stepped, attendance
        # A loss holds its whole graph.
        self._numbers = {
            name: number.detach() if isinstance(number, Tensor) else number
            for name, number in (("loss", loss), ("learning_rate", rate))
        }
        samples = [sample for both in heard.values() for each in both if each is not None for sample in each.samples]
        self._audible = bool(samples) if heard else None
        vectors = [norms_of(samples)] if samples else []
        vectors += [parts.norms for parts in groups.values() if parts is not None]
        vectors += [_scalar(number) for number in self._numbers.values() if isinstance(number, Tensor)]
        self._readout = Readout(vectors)

    @property
    def ready(self) -> bool:
        """Whether `signal` answers without waiting."""
        return self._readout.ready

    def signal(self) -> Signal:
        """The record; waits for the device where it must."""
        values = iter(self._readout.values())
        fields = {**self._known, **self._places(values)}
        for name, parts in self._groups.items():
            before = self._carried[name]
            if parts is None:
                fields[name] = ()
            else:
                fields[name] = self._carried[name] = parts.joined(list(islice(values, len(parts.owners))), before)
        for name, number in self._numbers.items():
            read = next(values) if isinstance(number, Tensor) else number
            fields[name] = None if read is None else float(read)
        moved = _moved(fields["update_norm"])
        self._attendance.note(fields["step"], heard=self._audible, stepped=self._stepped, moved=moved)
        if moved and self._stepped is False:
            # Another optimizer made this move, at a rate of its own.
            fields["learning_rate"] = None
        return Signal(**fields)

    def _places(self, values: Iterator[float]) -> Carried:
        found = {name: list(self._carried[name]) for name in PLACES}
        for i, (forward, backward) in self._heard.items():
            norms = list(islice(values, len(forward.samples)))
            found["activation_rms"][i] = _rms(forward, norms)
            found["nonfinite_fraction"][i] = _nonfinite_fraction(forward, norms)
            if backward is not None:
                found["gradient_rms"][i] = _rms(backward, list(islice(values, len(backward.samples))))
        self._carried |= {name: tuple(numbers) for name, numbers in found.items()}
        return {name: self._carried[name] for name in PLACES}


def _moved(updates: Sequence[float]) -> bool | None:
    """Whether a weight changed; None where that was not taken, or lost in NaN."""
    if any(norm > 0 for norm in updates):
        return True
    return False if updates and not any(map(math.isnan, updates)) else None


def _scalar(number: Tensor) -> Tensor:
    """As a vector of one."""
    return number.reshape(1) if number.numel() == 1 else number.float().mean().reshape(1)


def _rms(heard: Heard, norms: Sequence[float]) -> float:
    """Over all that was heard at a place; NaN where nothing was."""
    return math.hypot(*norms) / math.sqrt(heard.entries) if norms and heard.entries else math.nan


def _nonfinite_fraction(heard: Heard, norms: Sequence[float]) -> float:
    """A finite norm has finite parts: entries are only counted once the numbers are lost anyway."""
    if not norms or not heard.entries:
        return math.nan
    if all(map(math.isfinite, norms)):
        return 0.0
    return sum(int(sample.isfinite().logical_not().sum()) for sample in heard.samples) / heard.entries
