"""Where along depth a growth arises, and by which law.

A profile is what each step adds to a logarithm, by the step's index, in nat: to the relative
gradient gain on the way from the output back, or to the size of the signal on the way forward.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dynstab.diagnostics.facts import Facts, broken, log
from dynstab.diagnostics.thresholds import HEALTHY

Profile = Mapping[int, float]


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Neighbouring steps, and the nat that they add together."""

    steps: tuple[int, ...]
    total: float


def gradient_profile(facts: Facts) -> dict[int, float]:
    """ln of the gradient gain that each step adds: relative, but raw up to a step that fills up the states.

    From the flow, else from the steps alone. The relative scale compares a state with what came before it. Where
    layers let the states shrink away and a bias then takes their place, it finds no fault with the layers and books
    all of the loss on the bias: there the raw gains tell where the gradient is lost.
    """
    relative, filled = _gains(facts, "relative_gain"), filled_up(facts)
    if filled is None:
        return relative
    raw = _gains(facts, "gain")
    return {
        index: raw.get(index, value) if index <= filled and not is_stem(facts, index) else value
        for index, value in relative.items()
    }


def filled_up(facts: Facts) -> int | None:
    """The last step at which something constant, such as a bias, takes the place of states that had shrunk away.

    The states lie more than HEALTHY nat below the largest before them, the step makes them grow by more than that,
    and its Jacobian explains none of it: under a rescaling or a normalisation the raw gain would grow as they do.
    """
    sizes = {state.index: log(state.rms) for state in facts.measurements.states if not broken(state)}
    growth = _differences({index: size for index, size in sizes.items() if size is not None}, backward=False)
    found, largest = None, -math.inf
    for index, gain in sorted(_gains(facts, "relative_gain").items()):
        size = sizes.get(index)
        if size is None or index not in growth:
            continue
        largest = max(largest, size)
        if size < largest - HEALTHY and growth[index] > HEALTHY and gain < -HEALTHY:
            found = index
    return found


def _gains(facts: Facts, scale: Literal["relative_gain", "gain"]) -> dict[int, float]:
    """ln of the gradient gain that each step adds on this scale."""
    logs = {flow.state: log(getattr(flow, scale)) for flow in facts.measurements.gradient_flow}
    profile = _differences({index: value for index, value in logs.items() if value is not None}, backward=True)
    if profile:
        return profile
    of_step = "rms_gain" if scale == "gain" else scale
    squared = {step.index: log(getattr(step, of_step)) for step in facts.measurements.steps}
    return {index: value / 2 for index, value in squared.items() if value is not None}


def signal_profile(facts: Facts) -> dict[int, float]:
    """ln of the growth of the states' rms that each step adds, up to the first broken state.

    A stem or a head, that is a first or last step that is a transition, changes the units of
    the signal and not its size: it is left out where other steps remain.
    """
    logs: dict[int, float] = {}
    for state in facts.measurements.states:
        value = log(state.rms)
        if broken(state) or value is None:
            break
        # An input of zeros has no size to compare with: signals are counted from the first state that has one.
        if logs or value > -math.inf:
            logs[state.index] = value
    profile = _differences(logs, backward=False)
    inner = {index: value for index, value in profile.items() if not is_end(facts, index)}
    return inner or profile


def is_end(facts: Facts, index: int) -> bool:
    """A stem or a head: a first or last step that changes the size of the state."""
    return index in (0, facts.depth - 1) and facts.kind(index) == "transition"


def is_stem(facts: Facts, index: int) -> bool:
    """A first step that changes the size of the state."""
    return index == 0 and is_end(facts, index)


def _differences(logs: Mapping[int, float], *, backward: bool) -> dict[int, float]:
    """What each step l adds between neighbouring states l and l + 1, both of which are known."""
    sign = -1.0 if backward else 1.0
    profile = {}
    for state, value in logs.items():
        if state + 1 in logs:
            added = sign * (logs[state + 1] - value)
            profile[state] = 0.0 if math.isnan(added) else added
    return profile


def worst_stretch(profile: Profile, *, sign: int) -> Stretch | None:
    """The neighbouring steps that exceed what is healthy by most, in the direction of `sign`.

    A step may add HEALTHY / L nat without comment: so much, in every step, is still healthy in
    sum. The stretch with the largest sum beyond this allowance is found in one pass (Kadane).
    None where no step exceeds it.
    """
    allowance = HEALTHY / max(len(profile), 1)
    best, best_sum = None, 0.0
    start, running, previous = 0, 0.0, None
    for index in sorted(profile):
        if running <= 0 or previous is None or index != previous + 1:
            start, running = index, 0.0
        # Bounded, so that infinities of both signs do not meet as NaN.
        running += min(max(sign * profile[index], -1e6), 1e6) - allowance
        previous = index
        if running > best_sum:
            best, best_sum = (start, index), running
    if best is None:
        return None
    steps = tuple(range(best[0], best[1] + 1))
    total = sum(profile[index] for index in steps)
    return Stretch(steps=steps, total=sign * math.inf if math.isnan(total) else total)


def cumulative(profile: Profile) -> list[float]:
    """Running sums in the order of depth, from 0."""
    sums = [0.0]
    for index in sorted(profile):
        sums.append(sums[-1] + profile[index])
    return sums


def growth_law(heights: Sequence[float]) -> str:
    """Which of three laws describes ln(size) along depth best: least squares with an intercept.

    Returns:
        "exponential" (linear in depth), "square-root", "logarithmic", or "none" for under four points.
    """
    if len(heights) < 4 or not all(map(math.isfinite, heights)):
        return "none"
    depth = range(len(heights))
    axes = {
        "exponential": [float(level) for level in depth],
        "square-root": [math.sqrt(level) for level in depth],
        "logarithmic": [math.log1p(level) for level in depth],
    }
    return min(axes, key=lambda law: _misfit(axes[law], heights))


def _misfit(axis: Sequence[float], heights: Sequence[float]) -> float:
    """Residual sum of squares of the line through (axis, heights)."""
    size = len(axis)
    mean_x, mean_y = sum(axis) / size, sum(heights) / size
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(axis, heights, strict=True))
    slope /= sum((x - mean_x) ** 2 for x in axis)
    return sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in zip(axis, heights, strict=True))
