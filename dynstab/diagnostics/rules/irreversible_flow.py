"""DS615: a solution from which the way back does not lead to where it came from."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from dynstab.core.flag import Severity
from dynstab.diagnostics.case import Case
from dynstab.diagnostics.facts import Facts
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.thresholds import SOLUTION_ERROR
from dynstab.diagnostics.words import number, share


def find(facts: Facts) -> Iterator[Finding]:
    flow = facts.measurements.flow
    error = flow.reversal_error.value if flow else None
    if flow is None or error is None or not error > SOLUTION_ERROR:
        return
    relies = " The adjoint equation runs along that way back." if flow.adjoint else ""
    lost = (
        "information was lost on the way"
        if flow.adaptive
        else "steps back undo steps forward only as far as both are accurate"
    )
    missed = "leads to infinity or NaN" if error == inf else f"misses the first one by {share(error)} its size"
    smaller = "Tighten the tolerance" if flow.adaptive else "Take smaller steps"
    yield Finding(
        measure="flow.reversal_error",
        value=error,
        threshold=SOLUTION_ERROR,
        where=f"t = {number(flow.end)} back to {number(flow.start)}",
        severity=None if flow.adjoint else Severity.INFO,
        message=f"Running {flow.solver} back from the last state {missed}: {lost}.{relies}",
        evidence={"stiffness": flow.stiffness.value, "rtol": flow.rtol, "atol": flow.atol},
        advice=(
            "Backpropagate through the solver (odeint), or through stored checkpoints.",
            f"{smaller}; what decays by e^-s forwards grows by e^s on the way back, so that a strong contraction "
            "cannot be undone whatever the solver.",
            "For a normalising flow, damp less: its inverse is this way back.",
        ),
    )


RULE = Rule(
    code="DS615",
    name="irreversible-flow",
    severity=Severity.WARNING,
    summary="Solving backwards from the last state does not recover the first one.",
    documentation=document(
        what_it_flags="""
            The state found by running the same solver from the end to the start differs from the initial state by
            more than 5 % of its norm, over all inputs. A warning where the model trains by the adjoint, which
            recovers its states in this way; a remark elsewhere.
            """,
        why_it_matters="""
            A flow is invertible, its numerical solution only as far as its contraction and the tolerance allow. The
            adjoint method and normalising flows count on it.
            """,
        known_problems="""
            torchdiffeq's adjoint starts again from the stored state at each requested output time, so that many of
            those make its way back shorter than the one measured here.
            """,
        example="""
            x' = -20 x over [0, 1] in float32: e^20 times rounding is more than the state itself.
            """,
        what_to_do="""
            Backpropagate through the solver, or make the field less contractive.
            """,
        references=(
            "Gholami, Keutzer & Biros (2019), ANODE: unconditionally accurate memory-efficient gradients, IJCAI",
            "Onken & Ruthotto (2020), Discretize-optimize vs. optimize-discretize for time-series regression",
        ),
    ),
    find=find,
    fires_on=(Case(flow={"reversal_error": 0.4}), Case(flow={"reversal_error": inf, "adjoint": False})),
    silent_on=(Case(), Case(flow={"reversal_error": 1e-3}), Case(flow={"reversal_error": None})),
)
