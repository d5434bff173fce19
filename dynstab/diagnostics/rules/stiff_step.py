"""DS303: a residual step that decays faster than it can follow."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from dynstab.core.flag import Severity
from dynstab.core.measurements import StepMeasurement
from dynstab.diagnostics.case import Case
from dynstab.diagnostics.euler import stable_step
from dynstab.diagnostics.facts import Facts
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.thresholds import ROUNDING, STABILITY_DISC
from dynstab.diagnostics.words import also, number


@dataclass(frozen=True, kw_only=True)
class _Decay:
    """The fastest and the slowest decay rate of a step's field, and the step size that its eigenvalues allow."""

    index: int
    allowed: float
    fastest: float
    slowest: float

    @property
    def ratio(self) -> float:
        return self.fastest / self.slowest


def find(facts: Facts) -> Iterator[Finding]:
    decays = [decay for step in facts.residual_steps() if (decay := _decay(step)) and decay.fastest > STABILITY_DISC]
    if not decays:
        return
    worst = max(decays, key=lambda decay: decay.fastest)
    yield Finding(
        measure="steps.eigenvalues",
        value=worst.fastest,
        threshold=STABILITY_DISC,
        where=facts.place(worst.index) if len(decays) == 1 else None,
        steps=tuple(sorted(decay.index for decay in decays)),
        message=f"{facts.place(worst.index)} is stiff: its fastest mode decays at |Re lambda| = "
        f"{number(worst.fastest)} per step, beyond the {number(STABILITY_DISC)} that explicit Euler follows"
        f"{also(len(decays))}{facts.caution}.",
        evidence={
            "worst_step": worst.index,
            "stiffness_ratio": worst.ratio,
            "slowest_decay": worst.slowest,
            "affected_steps": len(decays),
        },
        advice=(
            f"Multiply the branch by {number(worst.allowed)} or less.",
            "Split the step into several with a share of the branch each.",
            "Bound the branch's negative eigenvalues: spectral normalisation or weight decay on its last layer.",
        ),
    )


def _decay(step: StepMeasurement) -> _Decay | None:
    rates = [1.0 - real for real, _ in step.eigenvalues if math.isfinite(real) and 1.0 - real > ROUNDING]
    allowed = stable_step(step.eigenvalues)
    if not rates or allowed is None:
        return None
    return _Decay(index=step.index, allowed=allowed, fastest=max(rates), slowest=min(rates))


RULE = Rule(
    code="DS303",
    name="stiff-step",
    severity=Severity.WARNING,
    summary="A residual step has a mode that decays faster than explicit Euler can follow.",
    documentation=document(
        what_it_flags="""
            Some eigenvalue lambda of the field's Jacobian J - I has Re lambda < -2: it lies beyond the disc
            |1 + lambda| <= 1, and the step turns a decay into an oscillation that grows. The stiffness ratio,
            fastest over slowest decay among the eigenvalues measured, stands in the evidence.
            """,
        why_it_matters="""
            What was to be damped is overshot with the opposite sign. Read as a flow, the network would need
            smaller steps for stability than for accuracy, and an adaptive solver spends all its steps there.
            """,
        known_problems="""
            Only the eigenvalues that were measured are seen, so silence proves nothing where they are few. In
            causal networks eigenvalues come from the diagonal token blocks alone. A step that is meant to
            erase its input has Re lambda = -1 and is not stiff.
            """,
        example="""
            h - 3 h: a branch that removes the state three times over leaves -2 h.
            """,
        what_to_do="""
            Scale the branch down, split the step, or bound the branch's spectral norm.
            """,
        references=(
            "Soderlind, Jay & Calvo (2015), Stiffness 1952-2012: sixty years in search of a definition, BIT 55",
            "Kim et al. (2021), Stiff neural ordinary differential equations, Chaos 31",
            "Hairer & Wanner (1996), Solving ordinary differential equations II, Springer",
        ),
    ),
    find=find,
    silent_in=("training",),
    fires_on=(
        Case(steps={2: {"eigenvalues": ((1.2, 0.0), (-1.5, 0.0))}}),
        Case(every_step={"eigenvalues": ((-2.0, 1.0), (-2.0, -1.0), (0.9, 0.0))}, network={"causal": True}),
    ),
    silent_on=(
        Case(),
        Case(steps={2: {"eigenvalues": ((0.0, 0.0), (-0.9, 0.0))}}),
        Case(kind="plain", steps={2: {"eigenvalues": ((-1.5, 0.0),)}}),
        Case(every_step={"eigenvalues": ()}),
    ),
)
