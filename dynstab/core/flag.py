"""What a rule found."""

from __future__ import annotations

from enum import StrEnum

from dynstab.core.frozen import Frozen

Evidence = dict[str, float | int | str | bool | None | list[int] | list[float]]


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def rank(self) -> int:
        return list(Severity).index(self)


class Flag(Frozen):
    """A finding.

    Attributes:
        code, name: of the rule, e.g. "DS101", "exploding-gradient".
        where: "network", "steps 3-7" or a step's or state's name with its index, for people.
        steps: the indices of the steps concerned, for programs.
        message: one sentence with the decisive number in it.
        evidence: the numbers and thresholds that decided, by name.
        advice: what to try, most promising first.
    """

    code: str
    name: str
    severity: Severity
    where: str
    steps: tuple[int, ...] = ()
    message: str
    evidence: Evidence = {}
    advice: tuple[str, ...] = ()


class Verdict(Frozen):
    """The answer in one word and one sentence.

    Attributes:
        kind: stable, exploding, vanishing, mixed or inconclusive.
        confidence: high, medium or low. margin: nat between G and the nearest cut, positive inside the verdict.
    """

    kind: str
    summary: str
    confidence: str
    margin: float | None = None
