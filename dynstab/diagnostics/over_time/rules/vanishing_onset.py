"""DS710: while the network is trained, gradients come to vanish on their way to its first state."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dynstab.core.flag import Severity
from dynstab.core.run import Probe
from dynstab.diagnostics.over_time.case import RunCase
from dynstab.diagnostics.over_time.drift import drift_of
from dynstab.diagnostics.over_time.history import History
from dynstab.diagnostics.over_time.rule import RuleOverTime
from dynstab.diagnostics.rule import Finding, document
from dynstab.diagnostics.thresholds import HEALTHY, SEVERE
from dynstab.diagnostics.words import change, number

FALL = 2.0
"""Nat below the first probes."""


def find(history: History) -> Finding | None:
    drift = drift_of(history, _gain)
    if drift is None or drift.now >= -HEALTHY or drift.change > -FALL:
        return None
    probe = history.probes[-1]
    where, steps = _narrowest(history, probe.gradient_flow)
    return Finding(
        measure="probes.gradient_flow",
        value=drift.now,
        threshold=-SEVERE if drift.now < -SEVERE else -HEALTHY,
        where=where,
        steps=steps,
        message=f"At step {probe.step} gradients {change(drift.now)} from the last state to the first, "
        f"{number(-drift.change)} nat more than at the start of the run.",
        evidence={"since": drift.since, "first": drift.first},
        advice=(
            f"Look at {where} first: most of the fall happens there (saturation, dead units, a gate that closed).",
            "Lower the learning rate: large early steps drive units into saturation.",
            "Normalise the input of each branch, and keep the skip path an identity.",
        ),
    )


def _gain(probe: Probe) -> float:
    """ln of the relative gain of a gradient from the last state to the first; a gradient that is zero is no trend."""
    return probe.gradient_flow[0] if probe.gradient_flow else math.nan


def _narrowest(history: History, flow: Sequence[float]) -> tuple[str, tuple[int, ...]]:
    """The step of the network in which the gradient falls most, by name."""
    falls = [(after - before, i) for i, (before, after) in enumerate(zip(flow, flow[1:], strict=False))]
    finite = [fall for fall in falls if math.isfinite(fall[0])]
    if not finite:
        return "network", ()
    worst = max(finite)[1]
    names = history.info.steps
    return (f"{names[worst]} (step {worst})" if worst < len(names) else f"step {worst}"), (worst,)


def _falling(step: int) -> dict[str, object]:
    """A gradient that is cut by one step of the network more and more."""
    cut = -0.06 * max(0, step - 60)
    return {"gradient_flow": (cut, cut, cut, 0.0, 0.0, 0.0, 0.0)}


RULE = RuleOverTime(
    code="DS710",
    name="vanishing-onset",
    severity=Severity.WARNING,
    summary="Gradients have begun to vanish on their way to the first state.",
    documentation=document(
        what_it_flags="""
            The relative gradient gain from the last state to the first is below e^-3 (a twentieth) and at least 2
            nat below the median of the first three probes, in two probes in a row. The step of the network in which
            it falls most is named.
            """,
        why_it_matters="""
            The lower part of the network stops learning, and the upper part fits what the lower left behind. The
            loss goes on falling for a while and then stalls without a visible cause.
            """,
        known_problems="""
            A network that fits its probe perfectly has small gradients everywhere: the gain is relative to the last
            state and does not see that. Saturation at the output itself is not part of it.
            """,
        example="""
            A stack of tanh layers trained with too high a rate: the units saturate within a hundred steps.
            """,
        what_to_do="""
            Analyse the checkpoint (dynstab analyze), and look at the step that is named.
            """,
        references=(
            "Glorot & Bengio (2010), Understanding the difficulty of training deep feedforward networks, AISTATS",
            "Schoenholz, Gilmer, Ganguli & Sohl-Dickstein (2017), Deep information propagation, ICLR",
        ),
    ),
    reads=Probe,
    find=find,
    quiet=5,
    fires_on=(RunCase(probe=_falling),),
    silent_on=(
        RunCase(),
        RunCase(probe=lambda step: {"gradient_flow": (-5.0,) * 6 + (0.0,)}),
        RunCase(probe=lambda step: {"gradient_flow": ()}),
    ),
)
