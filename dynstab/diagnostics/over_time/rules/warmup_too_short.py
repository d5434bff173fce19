"""DS708: the learning rate rises faster than the sharpness falls."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from dynstab.core.flag import Severity
from dynstab.core.run import Probe
from dynstab.diagnostics.over_time.case import RunCase, curvature
from dynstab.diagnostics.over_time.history import History
from dynstab.diagnostics.over_time.rule import RuleOverTime
from dynstab.diagnostics.over_time.sharp import Sharp, sharp_probes
from dynstab.diagnostics.rule import Finding, document
from dynstab.diagnostics.words import number

PROBES, LAST = 6, 3
"""Whose trend counts; and the last of them, whose lowest ratio counts: single probes scatter upwards."""

HORIZON = 10
"""Probe intervals within which the threshold has to be passed."""

NEAR = 0.35
"""Ratios below here say nothing yet: most warm-ups reach them and fall again."""

RISE = 1.01
"""By which factor the learning rate must have risen from each of the last probes to the next: it still rises now."""


def find(history: History) -> Finding | None:
    probes = sharp_probes(history, count=PROBES)
    if len(probes) < PROBES or probes[-1].step != history.probes[-1].step:
        return None
    rises = [before.threshold / after.threshold for before, after in pairwise(probes[-LAST:])]
    ratio, slope = min(probe.ratio for probe in probes[-LAST:]), _slope(probes)
    highest = max(probe.ratio for probe in probes[-LAST:])
    interval = (probes[-1].step - probes[0].step) / (PROBES - 1)
    if min(rises) < RISE or slope <= 0 or ratio <= NEAR:
        return None
    left = max(0.0, -math.log(ratio) / slope)
    if left > HORIZON * interval:
        return None
    when = f"in about {number(round(left))} steps" if left >= 1 else "now"
    return Finding(
        measure="probes.sharpness",
        value=ratio,
        threshold=1.0,
        where="network",
        message=f"The learning rate rises ({number(math.prod(rises))} times since step {probes[-LAST].step}) and the "
        f"sharpness does not give way: {number(ratio)} to {number(highest)} times the optimizer's threshold in the "
        f"last {LAST} probes, up to step {probes[-1].step}; even the lowest passes it {when}.",
        evidence={"since": probes[-LAST].step, "rise": math.prod(rises), "slope": slope, "steps_left": left},
        advice=(
            "Stop raising the learning rate here, or raise it several times more slowly.",
            "Clip the norm of the gradient during the warm-up.",
            "Start from smaller weights: the sharpness at the start sets how fast the rate may rise.",
        ),
    )


def _slope(probes: list[Sharp]) -> float:
    """Of the logarithm of the ratio, per step, by least squares."""
    steps = np.array([probe.step for probe in probes], dtype=np.float64)
    logs = np.log([max(probe.ratio, 1e-12) for probe in probes])
    return float(np.polyfit(steps - steps[-1], logs, 1)[0])


def _rising(step: int) -> dict[str, object]:
    """A rate that grows by a hundredth a step, at a constant sharpness."""
    return {"sharpness": curvature(10.0), "threshold": 40.0 / 1.01 ** max(0, step - 60)}


def _at_its_peak(step: int) -> dict[str, object]:
    """A warm-up that ends at step 100, near the threshold, with a probe that scatters at step 80."""
    return {"sharpness": curvature(8.0 if step == 80 else 12.0), "threshold": 40.0 / 1.01 ** min(40, max(0, step - 60))}


RULE = RuleOverTime(
    code="DS708",
    name="warmup-too-short",
    severity=Severity.WARNING,
    summary="The learning rate rises faster than the sharpness of the loss falls: it is about to be too high.",
    documentation=document(
        what_it_flags="""
            Between each two of the last three probes the learning rate has risen by 1 % at least. The sharpness over
            the optimizer's threshold has risen over the last six, is above 0.35 in the last three, and on its line
            passes 1 within the next ten.
            """,
        why_it_matters="""
            A warm-up works because the sharpness falls while the rate is small. A rate that rises faster than that
            meets the threshold while the loss is still steep, and the network is thrown back or lost.
            """,
        known_problems="""
            A line through six probes is a coarse forecast. Rates that rise by the step of a scheduler, between
            two probes, are seen only afterwards.
            """,
        example="""
            A residual network with large initial weights, warmed up over 100 steps where 1000 were needed.
            """,
        what_to_do="""
            Lengthen the warm-up, or lower the peak of the learning rate to where the ratio stays below one.
            """,
        references=(
            "Gilmer et al. (2022), A loss curvature perspective on training instability in deep learning, ICLR",
            "Kalra & Barkeshli (2024), Why warmup the learning rate? NeurIPS",
        ),
    ),
    reads=Probe,
    find=find,
    quiet=5,
    fires_on=(RunCase(steps=160, probe=_rising),),
    silent_on=(
        RunCase(),
        RunCase(probe=lambda step: {"sharpness": curvature(10.0), "threshold": 4000.0 / (step + 1)}, steps=80),
        RunCase(probe=lambda step: {"sharpness": curvature(8.0 + 0.15 * step), "threshold": 40.0}, steps=180),
        RunCase(probe=_at_its_peak),
    ),
)
