"""DS614: the adjoint's gradient is not that of the solution that was computed."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from dynstab.core.flag import Severity
from dynstab.diagnostics.case import Case
from dynstab.diagnostics.facts import Facts
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.thresholds import ADJOINT_GAP, WRONG_GRADIENT
from dynstab.diagnostics.words import share


def find(facts: Facts) -> Iterator[Finding]:
    flow = facts.measurements.flow
    gap = flow.adjoint_gap.value if flow else None
    if flow is None or gap is None or not gap > ADJOINT_GAP or not flow.adjoint:
        return
    yield Finding(
        measure="flow.adjoint_gap",
        value=gap,
        threshold=ADJOINT_GAP,
        where=flow.source,
        severity=Severity.ERROR if gap > WRONG_GRADIENT else None,
        message=f"The adjoint's gradient {_off(gap)}: training follows another slope than that of its loss.",
        evidence={"reversal_error": flow.reversal_error.value, "rtol": flow.rtol, "atol": flow.atol},
        advice=(
            "Tighten adjoint_rtol and adjoint_atol (or rtol and atol) until the gap is small.",
            "Use odeint in place of odeint_adjoint where memory allows: its gradient is that of the solver.",
            "With a fixed step, halve it: the gap falls with the solver's order.",
        ),
    )


def _off(gap: float) -> str:
    if gap == inf:
        return "is infinite or NaN, where the gradient through the solver is finite"
    return f"is off by {share(gap)} the size of the gradient through the solver"


RULE = Rule(
    code="DS614",
    name="adjoint-mismatch",
    severity=Severity.WARNING,
    summary="The gradient by the adjoint equation differs from the gradient through the solver.",
    documentation=document(
        what_it_flags="""
            A model trains by odeint_adjoint, and for a random linear form of the last state its gradient, in the
            first state and the parameters together, is more than 1 % away from what autograd gives through the
            solver's own steps; an error beyond 50 %.
            """,
        why_it_matters="""
            The adjoint equation is solved anew, backwards, over a solution that is recovered on the way. Where that
            is inaccurate the gradient is not the gradient of the loss that is computed, and training may stall or
            diverge while every solve looks fine.
            """,
        known_problems="""
            One random linear form is compared: a particular loss may do better or worse. Neither gradient is the
            exact solution's; their distance is about the solver's error.
            """,
        example="""
            explicit Euler with ten steps: the gap is some per cent, and halves with the step.
            """,
        what_to_do="""
            Tighter tolerances for the adjoint, or backpropagation through the solver.
            """,
        references=(
            "Chen et al. (2018), Neural ordinary differential equations, NeurIPS",
            "Gholami, Keutzer & Biros (2019), ANODE: unconditionally accurate memory-efficient gradients, IJCAI",
            "Zhuang et al. (2020), Adaptive checkpoint adjoint method, ICML",
        ),
    ),
    find=find,
    fires_on=(Case(flow={"adjoint_gap": 0.08}), Case(flow={"adjoint_gap": 0.9}), Case(flow={"adjoint_gap": inf})),
    silent_on=(
        Case(),
        Case(flow={"adjoint_gap": 0.001}),
        Case(flow={"adjoint_gap": 0.2, "adjoint": False}),
        Case(flow={"adjoint_gap": None}),
    ),
)
