"""DS707: the sharpness of the loss stands at the optimizer's threshold, or beyond it."""

from __future__ import annotations

import math

from dynstab.core.flag import Severity
from dynstab.core.run import Probe
from dynstab.core.training_dynamics import EDGE
from dynstab.diagnostics.over_time.case import RunCase, curvature
from dynstab.diagnostics.over_time.history import History
from dynstab.diagnostics.over_time.rule import RuleOverTime
from dynstab.diagnostics.over_time.sharp import Sharp, sharp_probes
from dynstab.diagnostics.rule import Finding, document
from dynstab.diagnostics.words import number

PROBES = 3
"""In a row: catapults, and the first steps of Adam, pass sooner."""


def find(history: History) -> Finding | None:
    last = sharp_probes(history, count=PROBES)
    if len(last) < PROBES or last[-1].step != history.probes[-1].step:
        return None
    lowest, highest = min(probe.ratio for probe in last), max(probe.ratio for probe in last)
    now = last[-1]
    if lowest < EDGE[0]:
        return None
    beyond = lowest > EDGE[1]
    return Finding(
        measure="probes.sharpness",
        value=lowest,
        threshold=EDGE[1] if beyond else EDGE[0],
        severity=Severity.WARNING if beyond else Severity.INFO,
        where="network",
        message=_sentence(now, lowest, highest),
        evidence={
            "since": last[0].step,
            "ratios": [probe.ratio for probe in last],
            "sharpness": now.sharpness,
            "optimizer_threshold": now.threshold,
            "preconditioned": now.preconditioned,
        },
        advice=_advice(history, now) if beyond else (),
    )


def _sentence(now: Sharp, lowest: float, highest: float) -> str:
    """Of the three probes: the lowest is judged, and how far the others lie above it is told."""
    seen = "preconditioned sharpness" if now.preconditioned else "sharpness"
    low, high = number(lowest), number(highest)
    ratios = low if low == high else f"{low} to {high}"
    if lowest > EDGE[1]:
        meaning = "steps along the sharpest direction overshoot and grow"
    elif highest > EDGE[1]:
        meaning = "training goes beyond its edge of stability and comes back to it"
    else:
        meaning = "training runs at the edge of stability"
    return (
        f"In the last {PROBES} probes, up to step {now.step}, the {seen} is {ratios} times the threshold of the "
        f"optimizer: {meaning}."
    )


def _advice(history: History, now: Sharp) -> tuple[str, ...]:
    rate = history.signals[-1].learning_rate if history.signals else None
    target = f" to {number(0.8 * rate / now.ratio)}" if rate and math.isfinite(now.ratio) else ""
    more = ("Raise eps or lower beta2 of Adam where few weights have a tiny second moment.",) * now.preconditioned
    return (
        f"Lower the learning rate{target}, or warm it up for longer: sharpness falls when it rises slowly.",
        "Clip the norm of the gradient, which bounds what an overshoot can do.",
        *more,
    )


def _at(ratio: float) -> dict[str, object]:
    return {"sharpness": curvature(40.0 * ratio), "threshold": 40.0}


RULE = RuleOverTime(
    code="DS707",
    name="edge-of-stability",
    severity=Severity.WARNING,
    summary="The sharpness of the loss stands at the optimizer's threshold of stability, or beyond it.",
    documentation=document(
        what_it_flags="""
            The largest eigenvalue of the loss's Hessian (for Adam, of the preconditioned one) over the optimizer's
            threshold: 2/eta for gradient descent, (2 + 2b)/eta with momentum b, (2 + 2b)/((1 + 2b) eta) for
            Nesterov's, (2 + 2 b1)/((1 - b1) eta) for Adam. Three probes in a row above 0.9 are noted, above 1.15 they
            are a warning: the lowest of the three counts, and the message gives their range.
            """,
        why_it_matters="""
            Beyond the threshold the quadratic model of the loss says that every step along the sharpest direction
            overshoots by more than the last. Training with the full batch settles at 1 by itself and goes on to
            learn. What stays beyond is carried by the curvature of the curvature alone, and diverges when that
            fails.
            """,
        known_problems="""
            The sharpness is that of the probe batch: a few examples are sharper than the training set. It is taken as
            one trains, with the batch's own statistics under BatchNorm and with dropout, the same units at every
            probe: that scatters from probe to probe. Noise of
            small batches lowers the bearable ratio, to a half and less. With Adam, a weight whose second moment is tiny
            can raise the ratio of a single probe a hundredfold: two are passed over.
            """,
        example="""
            A transformer whose learning rate was raised tenfold: the ratio passes 1 a hundred steps before the loss
            leaves its course.
            """,
        what_to_do="""
            At the edge, nothing. Beyond it, lower the rate or lengthen the warm-up, and clip.
            """,
        references=(
            "Cohen et al. (2021), Gradient descent on neural networks typically occurs at the edge of stability, ICLR",
            "Cohen et al. (2022), Adaptive gradient methods at the edge of stability, arXiv:2207.14484",
            "Gilmer et al. (2022), A loss curvature perspective on training instability in deep learning, ICLR",
        ),
    ),
    reads=Probe,
    find=find,
    quiet=3,
    fires_on=(
        RunCase(probe=lambda step: _at(1.0) if step >= 100 else {}),
        RunCase(probe=lambda step: _at(1.5) if step >= 100 else {}),
        RunCase(probe=lambda step: _at(3.2 if step % 20 else 1.0) if step >= 100 else {}),
    ),
    silent_on=(
        RunCase(),
        RunCase(probe=lambda step: _at(60.0) if step in (0, 10, 100) else {}),
        RunCase(probe=lambda step: {"sharpness": None, "threshold": None}),
    ),
)
