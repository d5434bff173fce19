"""A run's records as curves: one number against the training step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from dynstab.core.run import Probe, Run, Signal

Point = tuple[int, float]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One quantity over a training run.

    Attributes:
        name: for programs; the trackers' metrics are called so. words: for people.
        logarithmic: positive, and read in ratios.
        points: (training step, value), where it was taken; NaN or infinite where it was taken and not finite.
        pace: training steps between two points, as planned.
    """

    name: str
    words: str
    logarithmic: bool
    points: tuple[Point, ...] = ()
    pace: int = 1

    @property
    def last(self) -> float | None:
        return self.points[-1][1] if self.points else None

    @property
    def lost(self) -> int | None:
        """The training step since which no point is finite; None where the last one is."""
        return lost_since(self.points)

    @property
    def holds(self) -> int:
        """Up to which training step the last point stands for now: the longest way there was between two points."""
        steps = [step for step, _ in self.points]
        return steps[-1] + max((self.pace, *(b - a for a, b in pairwise(steps)))) if steps else -1

    def now(self, step: int) -> float | None:
        """What is known of it at the run's last training step; None where it was not taken for too long."""
        return self.last if step <= self.holds else None

    def silent(self, step: int) -> int | None:
        """The training step of the last point where `now` has none."""
        return self.points[-1][0] if self.points and step > self.holds else None


def curves(run: Run) -> tuple[Curve, ...]:
    """All curves that the run has numbers for."""
    found = [_curve(words, logarithmic, name, of, run.signals, 1) for name, words, logarithmic, of in SIGNAL_NUMBERS]
    for name, words, logarithmic, of in PROBE_NUMBERS:
        pace = run.info.sharpness_every if name.startswith("sharpness") else run.info.every
        found.append(_curve(words, logarithmic, name, of, run.probes, pace))
    return tuple(
        curve for curve in found if curve.points and (curve.name not in IF_ANY or any(v for _, v in curve.points))
    )


def lost_since(points: Sequence[Point]) -> int | None:
    """The training step since which nothing is finite; None where the last point is."""
    since = None
    for step, value in reversed(points):
        if math.isfinite(value):
            break
        since = step
    return since


def total_norm(norms: Sequence[float]) -> float | None:
    """The norm of all groups together, not finite where that of one is not; None where none was taken."""
    return math.hypot(*norms) if norms else None


def relative_updates(signal: Signal) -> tuple[float | None, ...]:
    """||update|| / ||weight|| of every group, empty where it was not taken; None for weights that are all zero."""
    pairs = zip(signal.update_norm, signal.weight_norm, strict=False)
    return tuple(update / weight if weight else None for update, weight in pairs)


def largest(values: Iterable[float | None]) -> float | None:
    """The largest number, NaN where there is one; None where none was taken."""
    taken = [value for value in values if value is not None]
    return math.nan if any(map(math.isnan, taken)) else max(taken, default=None)


def sharpness_ratio(probe: Probe) -> float | None:
    """Sharpness over the optimiser's threshold: above 1, gradient descent on the local quadratic diverges."""
    value = _sharpness(probe)
    return value / probe.threshold if value is not None and probe.threshold else None


def _sharpness(probe: Probe) -> float | None:
    return None if probe.sharpness is None else probe.sharpness.value


def _first(values: Sequence[float]) -> float | None:
    return values[0] if values else None


def _activation(signal: Signal) -> float | None:
    pairs = zip(signal.activation_rms, signal.nonfinite_fraction, strict=False)
    return largest(None if math.isnan(fraction) else rms for rms, fraction in pairs)


def _nonfinite(signal: Signal) -> float | None:
    """Of places through which something has passed."""
    return largest(None if math.isnan(fraction) else fraction for fraction in signal.nonfinite_fraction)


SIGNAL_NUMBERS: tuple[tuple[str, str, bool, Callable[[Signal], float | None]], ...] = (
    ("loss", "loss", True, lambda signal: signal.loss),
    ("learning_rate", "learning rate", True, lambda signal: signal.learning_rate),
    ("gradient_norm", "gradient norm", True, lambda signal: total_norm(signal.gradient_norm)),
    ("largest_relative_update", "largest update / weight", True, lambda signal: largest(relative_updates(signal))),
    ("largest_activation_rms", "largest activation RMS", True, _activation),
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
    pace: int,
) -> Curve:
    points = tuple((record.step, value) for record in records if (value := of(record)) is not None)
    return Curve(name=name, words=words, logarithmic=logarithmic, points=points, pace=pace)
