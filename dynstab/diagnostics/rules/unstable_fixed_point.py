"""DS603: a recurrence rests where it would not return to."""

from __future__ import annotations

import math
from collections.abc import Iterator

from dynstab.core.flag import Severity
from dynstab.core.time_dynamics import FixedPoint
from dynstab.diagnostics.case import Case
from dynstab.diagnostics.case import number as measured
from dynstab.diagnostics.facts import Facts, at_least, finite
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.thresholds import ROUNDING
from dynstab.diagnostics.words import number


def find(facts: Facts) -> Iterator[Finding]:
    point = facts.rest
    if point is None:
        return
    radius, bound = finite(point.spectral_radius), at_least(point.spectral_radius)
    if radius is None or bound is None or bound <= 1 + ROUNDING:
        return
    yield Finding(
        measure="time.fixed_point.spectral_radius",
        value=radius,
        threshold=1.0,
        where="network",
        message=f"The fixed point at {point.state} repels: the spectral radius of the step is {number(radius)}, so "
        f"that a disturbance grows by a factor e every {number(1 / math.log(radius))} steps.",
        evidence={"error": point.spectral_radius.error, "movement": point.movement.value},
        advice=(
            "Damp the iteration, z <- (1 - a) z + a f(z): eigenvalues mu of f become 1 - a + a mu, which helps where "
            "they lie left of 1.",
            "Penalise the spectral radius or the norm of the Jacobian in training (Jacobian regularisation), or keep "
            "the weights' norm below one.",
            "If it is meant to be left (a start at zero, say), disturb it: exact zeros stay where they are for ever.",
        ),
    )


def _resting(radius: float | None) -> dict[str, object]:
    point = FixedPoint(state="cell t=99", movement=measured(1e-7), spectral_radius=measured(radius))
    return {"driven": False, "fixed_point": point}


RULE = Rule(
    code="DS603",
    name="unstable-fixed-point",
    severity=Severity.ERROR,
    summary="The states rest at a fixed point whose step has a spectral radius above one.",
    documentation=document(
        what_it_flags="""
            A map without drive, or with a constant one, rests (its state moves by less than a thousandth), and the
            Jacobian of its step there has an eigenvalue outside the unit circle, by more than its error.
            """,
        why_it_matters="""
            Rounding alone will drive the states away: what looks like an equilibrium is held by an exact zero or by a
            solver. Gradients through such a point (implicit differentiation solves with I - J) belong
            to a state that the iteration cannot reach.
            """,
        known_problems="""
            A Newton or Broyden solver finds equilibria that the plain iteration would leave, and they are solutions all
            the same: then the finding says that plain iteration must not be used. A saddle attracts in most
            directions and may take long to be left.
            """,
        example="""
            h <- tanh(W h) from h = 0 with a spectral radius of W of 1.5: zero is a fixed point, and the smallest
            disturbance grows by half at every step.
            """,
        what_to_do="""
            Damp the iteration, regularise the Jacobian, bound the weights, or start elsewhere.
            """,
        references=(
            "Bai, Kolter & Koltun (2019), Deep equilibrium models, NeurIPS",
            "Bai, Koltun & Kolter (2021), Stabilizing equilibrium models by Jacobian regularization, ICML",
            "Sussillo & Barak (2013), Opening the black box: low-dimensional dynamics in high-dimensional RNNs, Neural "
            "Computation 25",
        ),
    ),
    find=find,
    fires_on=(Case(time="time", kind="plain", dynamics=_resting(1.5)),),
    silent_on=(
        Case(),
        Case(time="time", kind="plain", dynamics=_resting(0.9)),
        Case(time="time", kind="plain", dynamics=_resting(1.0005)),
        Case(time="time", kind="plain", dynamics=_resting(None)),
        Case(time="time", kind="plain", dynamics={"driven": False}),
    ),
)
