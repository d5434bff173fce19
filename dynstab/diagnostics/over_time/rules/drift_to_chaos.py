"""DS709: while it is trained, the network comes to expand differences ever more along its depth."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dynstab.core.flag import Severity
from dynstab.core.run import Probe
from dynstab.diagnostics.over_time.case import RunCase
from dynstab.diagnostics.over_time.drift import Drift, drift_of
from dynstab.diagnostics.over_time.history import History
from dynstab.diagnostics.over_time.rule import RuleOverTime
from dynstab.diagnostics.rule import Finding, document
from dynstab.diagnostics.thresholds import HEALTHY, SEVERE
from dynstab.diagnostics.words import factor, number

RISE = 2.0
"""Nat above the first probes: a level alone may be the architecture's."""


def find(history: History) -> Finding | None:
    depth = len(history.info.steps)
    drift = drift_of(history, lambda probe: _expansion(probe, depth))
    if drift is None or drift.now <= HEALTHY or drift.change < RISE:
        return None
    step = history.probes[-1].step
    where, steps = _worst(history, history.probes[-1].step_gains)
    return Finding(
        measure="probes.exponents",
        value=drift.now,
        threshold=SEVERE if drift.now > SEVERE else HEALTHY,
        severity=Severity.ERROR if drift.now > SEVERE and _grows(drift) else Severity.WARNING,
        where=where,
        steps=steps,
        message=f"At step {step} the network expands its leading direction by {factor(drift.now)} from end to end, "
        f"{number(drift.change)} nat more than at the start of the run.",
        evidence={"since": drift.since, "first": drift.first, "exponent": drift.now / max(depth, 1)},
        advice=(
            f"Look at {where} first: its gain is the largest.",
            "Decay the weights, lower the learning rate, or normalise the input of each branch.",
            "Compare with an earlier checkpoint: dynstab compare.",
        ),
    )


def _expansion(probe: Probe, depth: int) -> float:
    """The leading exponent over the whole depth, in nat."""
    return probe.exponents[0] * depth if probe.exponents and depth else math.nan


def _grows(drift: Drift) -> bool:
    return drift.now >= drift.before


def _worst(history: History, gains: Sequence[float]) -> tuple[str, tuple[int, ...]]:
    """The step of the network with the largest gain, by name."""
    finite = [i for i, gain in enumerate(gains) if math.isfinite(gain)]
    if not finite:
        return "network", ()
    worst = max(finite, key=lambda i: gains[i])
    names = history.info.steps
    return (f"{names[worst]} (step {worst})" if worst < len(names) else f"step {worst}"), (worst,)


RULE = RuleOverTime(
    code="DS709",
    name="drift-to-chaos",
    severity=Severity.WARNING,
    summary="The leading exponent of the network along its depth has risen far above where it began.",
    documentation=document(
        what_it_flags="""
            The leading finite-time exponent times the depth, that is ln of the network's largest gain, is above 3 nat
            (a factor 20) and at least 2 nat above the median of the first three probes, in two probes in a row.
            Above 7 nat and still rising it is an error.
            """,
        why_it_matters="""
            A network whose gain grows while it trains comes to amplify every difference: of inputs, of rounding, of the
            last update. Gradients grow with it, and the learning rate that was right is too high.
            """,
        known_problems="""
            A classifier that becomes confident on its training data expands what lies across its decision boundary:
            some growth is learning. Only the leading direction is watched, on the few inputs of the probe.
            """,
        example="""
            A recurrent stack without normalisation whose leading exponent climbs from 0.01 to 0.4 nat a layer in a
            thousand steps.
            """,
        what_to_do="""
            Analyse the checkpoint (dynstab analyze) and see which steps expand; decay or normalise these.
            """,
        references=(
            "Poole et al. (2016), Exponential expressivity in deep neural networks through transient chaos, NeurIPS",
            "Engelken, Wolf & Abbott (2023), Lyapunov spectra of chaotic recurrent neural networks, Phys. Rev. Res. 5",
        ),
    ),
    reads=Probe,
    find=find,
    quiet=5,
    fires_on=(
        RunCase(probe=lambda step: {"exponents": (0.05 + 0.01 * max(0, step - 60), 0.0), "step_gains": (0, 0, 2, 0)}),
    ),
    silent_on=(
        RunCase(),
        RunCase(probe=lambda step: {"exponents": (0.9, 0.5)}),
        RunCase(probe=lambda step: {"exponents": (math.nan,) if step % 20 else (1.5,)}),
    ),
)
