"""DS903: the analysis did not finish."""

from __future__ import annotations

from collections.abc import Iterator

from dynstab.core.flag import Severity
from dynstab.diagnostics.case import Case
from dynstab.diagnostics.facts import Facts
from dynstab.diagnostics.rule import Finding, Rule, document


def find(facts: Facts) -> Iterator[Finding]:
    missing = facts.measurements.partial
    if not missing and not facts.interrupted:
        return
    names = f": {', '.join(missing)} did not finish" if missing else ""
    yield Finding(
        measure="partial",
        value=float(len(missing)),
        threshold=0.0,
        where="network",
        message=f"The analysis was cut short{names}; rules that need these numbers were silent.",
        evidence={"missing": ", ".join(missing), "interrupted": facts.interrupted},
        advice=("Run it again to the end, with --effort quick if time is short.",),
    )


RULE = Rule(
    code="DS903",
    name="incomplete-measurement",
    severity=Severity.WARNING,
    summary="Some measures did not finish, and the rules that need them were silent.",
    documentation=document(
        what_it_flags="""
            The analysis was interrupted, or a measure was abandoned, so that numbers are missing.
            """,
        why_it_matters="""
            A rule without its numbers is silent. Silence then means unknown, not healthy.
            """,
        known_problems="""
            Measures that were left out on purpose by the chosen effort do not count; their outcomes give the
            reason.
            """,
        example="""
            Ctrl-C during the singular values: the gradient flow is there, the exponents are not.
            """,
        what_to_do="""
            Run the analysis to its end, with less effort or fewer inputs if time is short.
            """,
        references=("Report schema: `measurements.partial` and the `outcome` of each estimate",),
    ),
    find=find,
    fires_on=(Case(partial=("lyapunov",)), Case(partial=("spectra", "states"))),
    silent_on=(Case(), Case(every_step={"kreiss_constant": None})),
)
