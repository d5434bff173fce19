"""The two numbers that a verdict rests on: how gradients and how signals change over the whole depth."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dynstab.core.estimate import Label
from dynstab.core.flag import Severity
from dynstab.diagnostics.facts import Facts, error, finite, standard_error
from dynstab.diagnostics.profiles import (
    Profile,
    cumulative,
    filled_up,
    gradient_profile,
    growth_law,
    is_end,
    signal_profile,
)
from dynstab.diagnostics.thresholds import CLAIM_TANGENTS, HEALTHY, SEVERE, SIGNIFICANCE
from dynstab.diagnostics.words import number


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The logarithm of a whole network's gain, in nat, beside what chance alone explains.

    Attributes:
        measure: where it stands in the measurements.
        value: of the logarithm, infinite where the gain is 0 or infinite.
        null, null_spread: what finite width alone gives, and one standard deviation of it.
        standard_error: of the value over inputs.
        known_error, known_null: whether these were measured at all; there is no null to know where one map acts
            at every step.
        samples: inputs. enough_tangents: sixteen cotangents an input, or an exact gain.
        law: of growth along depth. profile: what each step adds.
        state: at which the value was read, None for the whole depth.
        tolerated: the growth is of a kind that the architecture is built for.
        ends: nat of a stem and a head, which are left out of `value` where they would change the answer.
        left_out: their names, for a sentence.
        filled: the name of the step at which a constant takes the place of states that had shrunk away.
        axis: along what the steps lie, in a word.
    """

    measure: str
    value: float
    null: float = 0.0
    null_spread: float = 0.0
    standard_error: float = 0.0
    known_error: bool = True
    known_null: bool = True
    samples: int = 1
    enough_tangents: bool = True
    law: str = "none"
    profile: Profile
    state: int | None = None
    tolerated: bool = False
    ends: float = 0.0
    left_out: str = ""
    filled: str = ""
    axis: str = "depth"

    @property
    def error(self) -> float:
        """The value's and the null's errors together, one standard deviation."""
        return math.hypot(self.standard_error, self.null_spread)

    @property
    def sigmas(self) -> float:
        """How many standard errors the value lies from its null."""
        distance = abs(self.value - self.null)
        if math.isinf(self.value):
            return math.inf
        return distance / self.error if self.error > 0 else math.inf

    @property
    def sign(self) -> int:
        """1 where the gain exceeds 1, else -1."""
        return 1 if self.value > 0 else -1

    @property
    def beyond(self) -> bool:
        """The value lies outside of the healthy range, significant or not."""
        return abs(self.value) > HEALTHY

    @property
    def significant(self) -> bool:
        """The value lies more than four standard errors from its null, on its own side."""
        return self.sign * (self.value - self.null) > 0 and self.sigmas > SIGNIFICANCE

    @property
    def threshold(self) -> float:
        """The cut that the value passed, with its sign; the first one where it passed none."""
        return self.sign * (SEVERE if abs(self.value) > SEVERE else HEALTHY)

    @property
    def severity(self) -> Severity | None:
        """None within the healthy range or within chance; then warning, and error beyond a factor 1000."""
        if not (self.beyond and self.significant):
            return None
        severe = abs(self.value) > SEVERE
        if self.tolerated:
            return Severity.WARNING if severe else Severity.INFO
        return Severity.ERROR if severe else Severity.WARNING

    @property
    def trouble(self) -> int:
        """1 exploding, -1 vanishing, 0 neither."""
        return self.sign if self.severity in (Severity.WARNING, Severity.ERROR) else 0

    @property
    def without_ends(self) -> str:
        """For a sentence: what was left out of the value, if anything."""
        return f", {self.left_out} left out" if self.ends else ""

    @property
    def refilled(self) -> str:
        """For a sentence: where the states' size hides what was lost before."""
        if not self.filled:
            return ""
        return f"; the states shrink away too, until a constant such as a bias takes their place in {self.filled}"

    def at_rate(self, steps: int) -> str:
        """How it depends on depth or time, for a sentence; only an exponential law has a rate."""
        if self.law == "exponential" and math.isfinite(self.value):
            return f", exponential in {self.axis} at {number(abs(self.value) / max(steps, 1))} nat per step"
        return ", slower than exponentially" if self.law in ("square-root", "logarithmic") else ""


def gradient_reading(facts: Facts) -> Reading | None:
    """G = ln of the relative gradient gain from the output back to the first state.

    The relative gain is blind to a rescaling of the states: a pre-norm residual stream
    grows and its raw gradient shrinks in proportion. A stem or a head does not decide: a mean over
    positions divides the gradient among them, which is no vanishing. But it is no excuse for the steps between
    them either, see `gradient_profile`. None where unmeasured or NaN.
    """
    network = facts.measurements.network
    gain, null = network.log_gradient_gain, network.null_log_gain
    if gain.value is None or math.isnan(gain.value):
        return None
    profile = gradient_profile(facts)
    ends, filled = _deciding_ends(facts, gain.value, profile), filled_up(facts)
    return Reading(
        measure="network.log_gradient_gain",
        value=gain.value - ends,
        null=finite(null) or 0.0,
        null_spread=error(null),
        standard_error=error(gain),
        known_error=gain.error is not None and math.isfinite(gain.error),
        known_null=finite(null) is not None or facts.system.axis != "depth",
        samples=gain.samples,
        enough_tangents=_enough_tangents(facts),
        law=network.growth.law if network.growth and not ends else "none",
        profile={index: value for index, value in profile.items() if not (ends and is_end(facts, index))},
        ends=ends,
        left_out=_end_names(facts, profile),
        filled="" if filled is None else facts.place(filled),
        axis=facts.system.axis,
    )


def _deciding_ends(facts: Facts, gain: float, profile: Profile) -> float:
    """The nat that stem and head add, if these alone put the gain beyond the healthy range or back into it."""
    ends = [value for index, value in profile.items() if is_end(facts, index)]
    total = sum(ends)
    if not 0 < len(ends) < len(profile) or not math.isfinite(total):
        return 0.0
    return total if (abs(gain) > HEALTHY) != (abs(gain - total) > HEALTHY) else 0.0


def _end_names(facts: Facts, profile: Profile) -> str:
    ends = [index for index in sorted(profile) if is_end(facts, index)]
    return " and ".join(f"the {'stem' if index == 0 else 'head'} {facts.place(index)}" for index in ends)


def _enough_tangents(facts: Facts) -> bool:
    """The gain rests on enough cotangents an input, or on all of them. The flow says which, where it is there."""
    flow = min(facts.measurements.gradient_flow, key=lambda flow: flow.state, default=None)
    sources = [facts.measurements.network.log_gradient_gain, *([flow.gain] if flow else [])]
    return any(source.label is Label.EXACT or source.products >= CLAIM_TANGENTS for source in sources)


def signal_reading(facts: Facts) -> Reading | None:
    """S = ln rms(h_l)/rms(h_0) at the state where it is farthest from 0, a stem or a head left out.

    The farthest state and not the last, because a final normalisation hides what came before.
    Growth slower than exponential is what a residual stream does by adding: it is tolerated
    to a factor 1000. Before a broken state only the finite states are read. None where nothing
    was measured.
    """
    whole = facts.measurements.network.log_signal_gain
    profile = signal_profile(facts)
    heights = cumulative(profile)
    value = max(heights, key=abs) if profile else whole.value
    if value is None or math.isnan(value):
        return None
    levels = heights.index(value) if profile else 0
    law = growth_law(heights[: levels + 1])
    share = min(levels / facts.depth, 1.0) if levels and facts.depth else 1.0
    null = facts.measurements.network.null_log_gain
    residual = facts.architecture in ("residual", "transformer")
    return Reading(
        measure="states.rms" if profile else "network.log_signal_gain",
        value=value,
        # Width makes signals wander as it does gradients: mean and variance in proportion to the steps passed.
        null=share * (finite(null) or 0.0),
        null_spread=math.sqrt(share) * error(null),
        standard_error=standard_error(whole),
        known_error=whole.error is not None and math.isfinite(whole.error),
        known_null=finite(null) is not None or facts.system.axis != "depth",
        samples=whole.samples,
        law=law,
        profile=profile,
        state=sorted(profile)[levels - 1] + 1 if levels else None,
        tolerated=residual and value > 0 and law in ("square-root", "logarithmic"),
        axis=facts.system.axis,
    )
