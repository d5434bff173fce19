"""DS901: no step, or no gradient."""

from __future__ import annotations

from collections.abc import Iterator

from dynstab.core.flag import Severity
from dynstab.diagnostics.case import Case
from dynstab.diagnostics.facts import Facts
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.words import count


def find(facts: Facts) -> Iterator[Finding]:
    if not facts.system.steps and facts.measurements.flow is None:  # what stops a flow has rules of its own
        yield _finding(
            facts,
            "system.steps",
            f"There is nothing to analyse: the system has {count(len(facts.system.states), 'state')} and no step.",
        )
    elif facts.system.steps and not _has_gradient(facts):
        reason = facts.measurements.network.log_gradient_gain.outcome.rstrip(".")
        yield _finding(
            facts, "network.log_gradient_gain", f"No gradient from the output back to the input was measured: {reason}."
        )


def _has_gradient(facts: Facts) -> bool:
    flow = facts.measurements.gradient_flow
    return facts.measurements.network.log_gradient_gain.measured or any(state.gain.measured for state in flow)


def _finding(facts: Facts, measure: str, message: str) -> Finding:
    return Finding(
        measure=measure,
        value=0.0,
        threshold=1.0,
        where="network",
        message=message,
        evidence={"steps": facts.depth, "states": len(facts.system.states)},
        advice=(
            "Give an input on which the output depends in a differentiable way: floating point, not detached.",
            "Name the states yourself (--states GLOB), or choose a finer granularity (--granularity fine).",
            "`dynstab inspect` shows the states and steps that were found.",
        ),
    )


RULE = Rule(
    code="DS901",
    name="nothing-to-analyze",
    severity=Severity.WARNING,
    summary="The system has no step, or no gradient reaches its input.",
    documentation=document(
        what_it_flags="""
            A system without a step, or one in which no gradient gain at all could be measured.
            """,
        why_it_matters="""
            The report is then silent about stability, which must not be read as stable.
            """,
        known_problems="""
            A gradient that was measured and is exactly zero is a vanishing gradient, not this. An analysis
            that was interrupted before the gradients is flagged too. A differential equation whose solver
            accepted no step is left to unfinished-solution.
            """,
        example="""
            A module that returns its input, or one that detaches it.
            """,
        what_to_do="""
            Give a floating-point input on which the output depends, or name the states.
            """,
        references=("Griewank & Walther (2008), Evaluating derivatives, SIAM",),
    ),
    find=find,
    fires_on=(Case(depth=0), Case(depth=3, network={"log_gradient_gain": None}, no_flow=True)),
    silent_on=(
        Case(),
        Case(depth=1),
        Case(depth=0, flow={"outcome": "stopped at t = 0", "steps": ()}),
        Case(network={"log_gradient_gain": None}),
    ),
)
