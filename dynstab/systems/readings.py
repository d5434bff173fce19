"""How a model may be read: as depth, as a recurrence over time, as a flow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from dynstab.systems.depth import depth_system
from dynstab.systems.flow import flow_system, solves_equations
from dynstab.systems.time import is_recurrent, time_system
from dynstab.systems.trajectory import System


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A way to make a trajectory of a module.

    Attributes:
        kind: the name of the system. make: (module, args, kwargs, *, dtype, device, granularity, states, seed,
            verify) -> System. fits: whether `auto` chooses it for (module, args, kwargs).
    """

    kind: str
    make: Callable[..., System]
    fits: Callable[[nn.Module, tuple[Any, ...], Mapping[str, Any]], bool]


READINGS = (
    Reading(kind="flow", make=flow_system, fits=solves_equations),
    Reading(kind="time", make=time_system, fits=is_recurrent),
    Reading(kind="depth", make=depth_system, fits=lambda module, args, kwargs: True),
)
"""In the order in which `auto` asks."""


def reading_of(kind: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Reading:
    """The reading of that name; for "auto" the first that fits."""
    wanted = (reading for reading in READINGS if kind in ("auto", reading.kind))
    return next(reading for reading in wanted if kind != "auto" or reading.fits(module, args, kwargs))
