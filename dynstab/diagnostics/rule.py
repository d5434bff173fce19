"""A rule: its documentation, its cases and a pure function from facts to findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from inspect import cleandoc
from typing import Protocol

from dynstab.core.flag import Evidence, Flag, Severity
from dynstab.diagnostics.case import Case
from dynstab.diagnostics.facts import Facts
from dynstab.diagnostics.words import spans

HEADINGS = ("What it flags", "Why it matters", "Known problems", "Example", "What to do", "References")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a rule found, before its code and name are put on it.

    Attributes:
        measure: which number decided, by its path in the measurements.
        value, threshold: that number, and the cut that it passed.
        message: one sentence with the decisive number in it.
        where: for people; None names the steps. steps: for programs.
        severity: None is the rule's own.
        evidence: further numbers that the decision used.
    """

    measure: str
    value: float
    threshold: float
    message: str
    where: str | None = None
    steps: tuple[int, ...] = ()
    severity: Severity | None = None
    evidence: Evidence = field(default_factory=dict)
    advice: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One thing that can be wrong with a network.

    Attributes:
        code: "DS" and three digits, the first of which is the family: 1 gradient flow, 2 signal,
            3 steps and dynamics, 4 numerics, 5 structure, 6 time and flow, 7 training, 9 the analysis itself.
        severity: of a finding that does not say otherwise.
        summary: one sentence. documentation: text by heading, see HEADINGS.
        find: facts -> findings, never raises and never changes anything.
        silent_in: kinds of system ("time", "training") that it has nothing to say of.
        fires_on, silent_on: cases on which this rule, and no other, speaks; and on which it does not.
    """

    code: str
    name: str
    severity: Severity
    summary: str
    documentation: Mapping[str, str]
    find: Callable[[Facts], Iterable[Finding]]
    fires_on: tuple[Case, ...]
    silent_on: tuple[Case, ...]
    silent_in: tuple[str, ...] = ()

    def check(self, facts: Facts) -> tuple[Flag, ...]:
        """The findings of this rule as flags; none for a kind of system that it does not speak of."""
        if facts.system.kind in self.silent_in:
            return ()
        return tuple(flag_of(self, finding) for finding in self.find(facts))


class Coded(Protocol):
    """What a finding needs of its rule to become a flag."""

    @property
    def code(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def severity(self) -> Severity: ...


def flag_of(rule: Coded, finding: Finding) -> Flag:
    """A finding with the code and the name of its rule on it."""
    return Flag(
        code=rule.code,
        name=rule.name,
        severity=finding.severity or rule.severity,
        where=finding.where or spans(finding.steps),
        steps=finding.steps,
        message=finding.message,
        evidence={
            "measure": finding.measure,
            "value": finding.value,
            "threshold": finding.threshold,
            **finding.evidence,
        },
        advice=finding.advice,
    )


def document(
    *,
    what_it_flags: str,
    why_it_matters: str,
    known_problems: str,
    example: str,
    what_to_do: str,
    references: tuple[str, ...],
) -> dict[str, str]:
    """A rule's documentation, text by heading in the fixed order, as Markdown."""
    listed = "\n".join(f"- {reference}" for reference in references)
    texts = (what_it_flags, why_it_matters, known_problems, example, what_to_do, listed)
    return {heading: cleandoc(text) for heading, text in zip(HEADINGS, texts, strict=True)}
