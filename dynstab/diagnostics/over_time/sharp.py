"""Sharpness beside its threshold, as the probes of a run saw it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dynstab.core.run import Probe
from dynstab.diagnostics.over_time.history import History


@dataclass(frozen=True, kw_only=True)
class Sharp:
    """One probe: lambda_max and the optimizer's threshold, which is inversely proportional to its learning rate."""

    step: int
    sharpness: float
    threshold: float
    preconditioned: bool

    @property
    def ratio(self) -> float:
        return self.sharpness / self.threshold


def sharp_probes(history: History, *, count: int) -> list[Sharp]:
    """The last probes that measured it, at most so many, the newest last."""
    found: list[Sharp] = []
    for probe in reversed(history.probes):
        known = _sharp(probe)
        if known is not None:
            found.append(known)
        if len(found) == count:
            break
    return found[::-1]


def _sharp(probe: Probe) -> Sharp | None:
    """None where the number is missing or not finite."""
    value = None if probe.sharpness is None else probe.sharpness.value
    if value is None or not math.isfinite(value) or not probe.threshold or not math.isfinite(probe.threshold):
        return None
    return Sharp(step=probe.step, sharpness=value, threshold=probe.threshold, preconditioned=probe.preconditioned)
