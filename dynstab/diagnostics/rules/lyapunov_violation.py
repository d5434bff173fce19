"""DS514: a trajectory that settles, against its own Lyapunov function."""

from __future__ import annotations

from collections.abc import Iterator

from dynstab.core.flag import Severity
from dynstab.core.structure import LyapunovDecrease
from dynstab.diagnostics.case import Case, number
from dynstab.diagnostics.facts import Facts, finite
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.thresholds import VIOLATIONS
from dynstab.diagnostics.words import number as shown
from dynstab.diagnostics.words import percent


def find(facts: Facts) -> Iterator[Finding]:
    found = facts.measurements.structure.lyapunov if facts.measurements.structure else None
    share = finite(found.violations) if found else None
    if found is None or share is None or share <= VIOLATIONS:
        return
    growth = finite(found.largest_growth)
    most = f", at most by a factor {shown(growth)}" if growth is not None else ""
    yield Finding(
        measure="structure.lyapunov.violations",
        value=share,
        threshold=VIOLATIONS,
        where="network",
        message=f"On the way to its fixed point the state moves away from it in {percent(share)} of the steps, in the "
        f"metric in which the linear system never does{most}.",
        evidence={"largest_growth": growth, "spectral_radius": found.spectral_radius.value},
        advice=("Start nearer to the fixed point, or use dynstab.lyapunov_function to see how far V holds.",),
    )


def _case(violations: float) -> LyapunovDecrease:
    return LyapunovDecrease(
        spectral_radius=number(0.8), violations=number(violations), largest_growth=number(1.4), metric_gain=number(0.9)
    )


RULE = Rule(
    code="DS514",
    name="lyapunov-violation",
    severity=Severity.INFO,
    summary="The quadratic Lyapunov function of the fixed point grows along a trajectory that ends there.",
    documentation=document(
        what_it_flags="""
            A trajectory settles at a stable fixed point. V(x) = (x - x*)^T P (x - x*), with P from the discrete
            Lyapunov equation of the last step, grows in more than 5 % of the steps on the way.
            """,
        why_it_matters="""
            Near x*, V falls at every step. Where it does not, the nonlinear system is not what its linearisation
            says: the stability that eigenvalues promise holds in a smaller neighbourhood than the one that is used.
            """,
        known_problems="""
            Another V may fall where this one does not: a violation is no instability. With inputs that change from step
            to step there is no one fixed point.
            """,
        example="""
            A gated recurrence that first saturates and then relaxes: V grows for the first ten of a hundred steps.
            """,
        what_to_do="""
            Nothing where the way is known to be long; else look with `dynstab.lyapunov_function` how far V holds.
            """,
        references=("Khalil (2002), Nonlinear systems, Prentice Hall, ch. 4 and 8",),
    ),
    find=find,
    fires_on=(Case(structure={"lyapunov": _case(0.2)}),),
    silent_on=(Case(), Case(structure={"lyapunov": _case(0.0)})),
)
