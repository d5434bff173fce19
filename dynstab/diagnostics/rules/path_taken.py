"""DS904: forward branches on values of the input."""

from __future__ import annotations

from collections.abc import Iterator

from dynstab.core.flag import Severity
from dynstab.core.report import Choices
from dynstab.diagnostics.case import Case
from dynstab.diagnostics.facts import Facts
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.words import count


def find(facts: Facts) -> Iterator[Finding]:
    branches = facts.system.choices.branches
    if not branches:
        return
    places = ", ".join(branches[:3]) + (", ..." if len(branches) > 3 else "")
    yield Finding(
        measure="system.choices.branches",
        value=float(len(branches)),
        threshold=0.0,
        where="network",
        message=f"Forward turns values that depend on the input into Python numbers in {count(len(branches), 'place')} "
        f"({places}): the report holds for the path taken at these inputs.",
        evidence={"places": places},
        advice=(
            "Analyse inputs that take the other paths too, one analysis each.",
            "Where both paths are cheap, torch.where makes them one function, which is analysed as a whole.",
        ),
    )


RULE = Rule(
    code="DS904",
    name="path-taken",
    severity=Severity.INFO,
    summary="Forward takes its path by values of the input: other inputs may take another.",
    documentation=document(
        what_it_flags="""
            In one run of the model, a tensor that depends on the input by data became a Python number or decided
            a shape: `if x.sum() > 0`, `x.item()`, `range(int(length))`, `x[x > 0]`.
            """,
        why_it_matters="""
            The analysis is of a straight line of operations, the one that these inputs caused. On another path
            there are other operations, and other gains.
            """,
        known_problems="""
            A number that is only checked (an assertion, a test for padding) changes nothing but is flagged as
            well: dynstab sees that a value was read, not what became of it. Generators that draw outside of
            torch are not seen here.
            """,
        example="""
            A network that exits early where its confidence is high; an adaptive number of iterations; a mask
            that is left out where all tokens are real.
            """,
        what_to_do="""
            Analyse inputs of every kind that the model tells apart, and compare the reports.
            """,
        references=("Griewank & Walther (2008), Evaluating derivatives, SIAM, on branches in differentiated programs",),
    ),
    find=find,
    fires_on=(
        Case(choices=Choices(branches=("net.py:12",))),
        Case(choices=Choices(branches=("a.py:1", "a.py:2", "a.py:3", "b.py:4"))),
    ),
    silent_on=(Case(), Case(choices=Choices(functions=("Gate",)))),
)
