"""What a report on a training run says of its next updates: do they overshoot, or do the weights run away?"""

from __future__ import annotations

import math
from dataclasses import dataclass

from dynstab.core.training_dynamics import EDGE, TrainingDynamics
from dynstab.diagnostics.facts import Facts, finite
from dynstab.diagnostics.readings import Reading, gradient_reading, signal_reading
from dynstab.diagnostics.thresholds import HEALTHY, SEVERE
from dynstab.diagnostics.words import change, magnitude, number, share


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """The number that decided, by its path in the measurements, its cut, and a sentence without its full stop.

    Attributes:
        passing: a clause on why it may be over in a few updates; empty where nothing says so.
    """

    measure: str
    value: float
    threshold: float
    sentence: str
    passing: str = ""


def training_trouble(facts: Facts, training: TrainingDynamics) -> Trouble | None:
    """Weights that grow, deviations that grow, or a sharpness beyond the edge; None where there is none of these.

    Deviations may grow by a factor 1000 before it counts: momentum adds up to 1 / (1 - b) of them and then stops.
    """
    updates = f"over {facts.depth} updates"
    weights, deviations = signal_reading(facts), gradient_reading(facts)
    if weights is not None and weights.value > HEALTHY:
        sentence = f"The weights run away: they {change(weights.value)} {updates}"
        return Trouble(measure=weights.measure, value=weights.value, threshold=HEALTHY, sentence=sentence)
    if deviations is not None and deviations.value > SEVERE:
        sentence = f"The updates diverge: small deviations of the weights {change(deviations.value)} {updates}"
        return Trouble(measure=deviations.measure, value=deviations.value, threshold=SEVERE, sentence=sentence)
    ratio = training.ratio.value
    if training.stands != "beyond" or ratio is None:
        return None
    sentence = f"The updates overshoot: {_stands(training)}, so that deviations along the sharpest direction grow"
    passing = _passing(facts, training, deviations)
    return Trouble(measure="training.ratio", value=ratio, threshold=EDGE[1], sentence=sentence, passing=passing)


def _passing(facts: Facts, training: TrainingDynamics, deviations: Reading | None) -> str:
    """What the updates that were followed say against a sharpness that is measured before the first of them."""
    if training.preconditioned and deviations is not None and deviations.value <= HEALTHY:
        return (
            f"{_changed(facts, deviations.value)} all the same: a weight whose second moment is still tiny "
            "raises the preconditioned sharpness for a few updates"
        )
    last = facts.measurements.steps[-1]
    stretch = finite(last.largest_singular_value)
    # The singular values of gradient descent are |1 - eta lambda|; with momentum they say nothing of the edge.
    if facts.kind(last.index) == "residual" and stretch is not None and stretch < 2 * EDGE[1] - 1:
        return (
            f"the last of {facts.depth} updates stretches no direction by more than a factor {number(stretch)}, "
            "so that the run seems to come back by itself"
        )
    return ""


def training_calm(facts: Facts, training: TrainingDynamics) -> str:
    """The sentence of a run without trouble whose sharpness is known."""
    deviations = gradient_reading(facts)
    measured = ""
    if deviations is not None and math.isfinite(deviations.value):
        measured = f"; {_changed(facts, deviations.value)}"
    where = "do not overshoot" if training.stands == "stable" else "are at the edge of stability"
    return f"The updates {where}: {_stands(training)}{measured}."


def _changed(facts: Facts, deviations: float) -> str:
    return f"small deviations of the weights change by a factor {magnitude(deviations)} over {facts.depth} updates"


def _stands(training: TrainingDynamics) -> str:
    seen = "preconditioned sharpness" if training.preconditioned else "sharpness"
    return f"the {seen} is {share(training.ratio.value or 0.0)} the optimiser's threshold"
