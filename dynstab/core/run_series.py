"""A run's records as curves: one number against the training step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from dynstab.core.run import Probe, Run, Signal

Point = tuple[int, float]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One quantity over a training run.

    Attributes:
        name: for programs; the trackers' metrics are called so. words: for people.
        logarithmic: positive, and read in ratios. points: (training step, value), where it was taken.
    """

    name: str
    words: str
    logarithmic: bool
    points: tuple[Point, ...] = ()

    @property
    def last(self) -> float | None:
        return self.points[-1][1] if self.points else None


def curves(run: Run) -> tuple[Curve, ...]:
    """All curves that the run has numbers for."""
    found = [_curve(words, logarithmic, name, of, run.signals) for name, words, logarithmic, of in SIGNAL_NUMBERS]
    found += [_curve(words, logarithmic, name, of, run.probes) for name, words, logarithmic, of in PROBE_NUMBERS]
    return tuple(
        curve for curve in found if curve.points and (curve.name not in IF_ANY or any(v for _, v in curve.points))
    )


def total_norm(norms: Iterable[float]) -> float | None:
    """The norm of all groups together; None where none was taken."""
    taken = [norm for norm in norms if not math.isnan(norm)]
    return math.hypot(*taken) if taken else None


def relative_updates(signal: Signal) -> tuple[float, ...]:
    """||update|| / ||weight|| of every group, NaN where it was not taken."""
    pairs = zip(signal.update_norm, signal.weight_norm, strict=False)
    return tuple(update / weight if weight else math.nan for update, weight in pairs)


def largest(values: Iterable[float]) -> float | None:
    """The largest number that was taken, or None."""
    return max((value for value in values if not math.isnan(value)), default=None)


def sharpness_ratio(probe: Probe) -> float | None:
    """Sharpness over the optimiser's threshold: above 1, gradient descent on the local quadratic diverges."""
    value = _sharpness(probe)
    return value / probe.threshold if value is not None and probe.threshold else None


def _sharpness(probe: Probe) -> float | None:
    return None if probe.sharpness is None else probe.sharpness.value


def _first(values: Sequence[float]) -> float | None:
    return values[0] if values and not math.isnan(values[0]) else None


def _nonfinite(signal: Signal) -> float | None:
    return largest(signal.nonfinite_fraction)


SIGNAL_NUMBERS: tuple[tuple[str, str, bool, Callable[[Signal], float | None]], ...] = (
    ("loss", "loss", True, lambda signal: signal.loss),
    ("learning_rate", "learning rate", True, lambda signal: signal.learning_rate),
    ("gradient_norm", "gradient norm", True, lambda signal: total_norm(signal.gradient_norm)),
    ("largest_relative_update", "largest update / weight", True, lambda signal: largest(relative_updates(signal))),
    ("largest_activation_rms", "largest activation RMS", True, lambda signal: largest(signal.activation_rms)),
    ("nonfinite_fraction", "non-finite activations", False, _nonfinite),
)
"""What a signal says over all groups and places: name, words, logarithmic, the number."""

PROBE_NUMBERS: tuple[tuple[str, str, bool, Callable[[Probe], float | None]], ...] = (
    ("leading_exponent", "leading exponent", False, lambda probe: _first(probe.exponents)),
    ("gradient_gain", "ln gradient gain", False, lambda probe: _first(probe.gradient_flow)),
    ("sharpness", "sharpness", True, _sharpness),
    ("sharpness_over_threshold", "sharpness / threshold", True, sharpness_ratio),
)
"""What a probe says of the whole network: name, words, logarithmic, the number."""

IF_ANY = frozenset({"nonfinite_fraction"})
"""Curves of which one speaks only where they leave zero."""


def _curve(
    words: str,
    logarithmic: bool,
    name: str,
    of: Callable[..., float | None],
    records: Sequence[Signal] | Sequence[Probe],
) -> Curve:
    points = tuple((record.step, value) for record in records if (value := of(record)) is not None)
    return Curve(name=name, words=words, logarithmic=logarithmic, points=points)
