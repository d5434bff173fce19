"""What to try against growth and decay along depth, by the family of network, most promising first."""

from __future__ import annotations

import math

from dynstab.diagnostics.facts import Facts
from dynstab.diagnostics.profiles import Stretch, worst_stretch
from dynstab.diagnostics.readings import Reading
from dynstab.diagnostics.words import factor, number, spans

_CUT = (
    "Exactly zero is a cut, not a decay: look for weights of zero, rectifiers that are zero on every input, saturated "
    "units and detached tensors.",
    "`dynstab rule dead-units` tells how rectifiers come back.",
)


def against_growth(facts: Facts, reading: Reading) -> tuple[str, ...]:
    """Against gradients or signals that grow."""
    shrink = number(math.exp(-_rate(facts, reading)))
    branch = number(1 / math.sqrt(max(len(_residual(facts)), 1)))
    advice = {
        "transformer": (
            f"Scale the output projections of attention and MLP by {branch}, one over the root of the number of "
            "residual updates, at initialisation.",
            "Normalise the input of each branch (pre-norm) instead of the sum after it.",
            "Warm up the learning rate and clip the norm of the gradient.",
        ),
        "residual": (
            f"Multiply each residual branch by {branch}, one over the root of their number, or start its last "
            "layer at zero.",
            "Normalise the input of each branch and leave the skip path an identity.",
            "Clip the norm of the gradient while the cause is being removed.",
        ),
        "recurrent": (
            "Clip the norm of the gradient.",
            f"Multiply the recurrent weights by {shrink}, or start them orthogonal.",
            "Use a gated cell (GRU, LSTM) or truncate backpropagation through time.",
        ),
        "map": (
            "Take gradients through a few steps at a time: they grow as errors of a prediction do.",
            "If the map is not meant to be chaotic, look for the parameter that makes its slope exceed 1.",
        ),
        "flow": (
            "Bound the field: a tanh or a spectral norm on its last layer, or weight decay while it trains.",
            "Shorten the interval: what grows is a rate times a time.",
            "Take smaller steps where the solver grows and the field does not.",
        ),
        "plain": (
            f"Multiply the initial weights of each layer by {shrink}, that is, divide their gain by exp(rate).",
            "Initialise for the nonlinearity: He for ReLU, orthogonal with gain 1 for tanh.",
            "Add skip connections or a normalisation to each layer.",
        ),
    }
    return _local(reading, sign=1) + advice[facts.architecture]


def against_decay(facts: Facts, reading: Reading) -> tuple[str, ...]:
    """Against gradients or signals that shrink; no scale helps what is cut off."""
    if math.isinf(reading.value):
        return _CUT
    grow = number(math.exp(_rate(facts, reading)))
    identity = "Keep the skip path an identity: no normalisation, gain or dropout between two additions."
    advice = {
        "transformer": (
            "Normalise the input of each branch (pre-norm): a normalisation after the addition shrinks the skip path.",
            identity,
            "Warm up the learning rate, so that the lower blocks are not left behind.",
        ),
        "residual": (
            identity,
            "Start the last layer of each branch at zero, so that every step begins as the identity.",
        ),
        "recurrent": (
            "Use a gated cell, with a forget bias of 1 or more.",
            f"Multiply the recurrent weights by {grow}, or start them orthogonal.",
        ),
        "map": ("Take gradients through a few steps at a time: a map that contracts forgets where it began.",),
        "flow": (
            "Shorten the interval: what decays is a rate times a time.",
            "Bound how fast the field contracts: weight decay, or an antisymmetric linear part.",
        ),
        "plain": (
            f"Multiply the initial weights of each layer by {grow}, that is, divide their gain by exp(rate).",
            "Initialise for the nonlinearity (He for ReLU, orthogonal for tanh) and avoid saturating ones.",
            "Add skip connections: a plain stack of this depth passes on little.",
        ),
    }
    return _local(reading, sign=-1) + advice[facts.architecture]


def place_of(reading: Reading, sign: int) -> Stretch | None:
    """The steps that cause it, where they are fewer than all."""
    stretch = worst_stretch(reading.profile, sign=sign)
    return stretch if stretch and len(stretch.steps) < len(reading.profile) else None


def _local(reading: Reading, sign: int) -> tuple[str, ...]:
    stretch = place_of(reading, sign)
    if stretch is None or 2 * len(stretch.steps) > len(reading.profile) or not math.isfinite(stretch.total):
        return ()
    place = spans(stretch.steps)
    return (f"Look at {place} first: {factor(abs(stretch.total))} of the change arises there.",)


def _residual(facts: Facts) -> list[int]:
    return [step.index for step in facts.system.steps if step.kind == "residual"]


def _rate(facts: Facts, reading: Reading) -> float:
    """|nat per step|, capped where the gain is 0 or infinite: no initialisation is scaled by more than e^2."""
    return min(abs(reading.value) / max(facts.depth, 1), 2.0)
