"""A rule over time: its documentation, its cases and a pure function from a run's history to a finding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dynstab.core.flag import Flag, Severity
from dynstab.core.run import Probe, Signal
from dynstab.diagnostics.over_time.case import RunCase
from dynstab.diagnostics.over_time.history import Episode, History
from dynstab.diagnostics.rule import Finding, flag_of


@dataclass(frozen=True, kw_only=True)
class RuleOverTime:
    """One thing that can go wrong while a network is trained.

    Attributes:
        code: "DS7" and two digits. name, severity, summary, documentation: as for `Rule`.
        reads: the kind of record after which it is asked.
        find: history -> what the newest record shows, None where that is nothing; changes nothing.
        quiet: records without a finding that end an episode; within one the rule speaks once,
            and once more where it gets worse.
        fires_on, silent_on: runs during which this rule speaks, and during which it does not.
    """

    code: str
    name: str
    severity: Severity
    summary: str
    documentation: Mapping[str, str]
    reads: type[Signal] | type[Probe]
    find: Callable[[History], Finding | None]
    quiet: int
    fires_on: tuple[RunCase, ...]
    silent_on: tuple[RunCase, ...]

    def check(self, history: History) -> Flag | None:
        """The finding at the newest record as a flag, unless it belongs to an episode already reported."""
        if type(history.latest) is not self.reads:
            return None
        finding, now = self.find(history), history.counts[self.reads]
        episode = history.episodes.get(self.code)
        if episode is not None and now - episode.record > self.quiet:
            del history.episodes[self.code]
            episode = None
        if finding is None:
            return None
        severity = finding.severity or self.severity
        known = episode.severity if episode is not None else None
        worst = severity if known is None or severity.rank > known.rank else known
        history.episodes[self.code] = Episode(severity=worst, record=now)
        return flag_of(self, finding) if known is None or severity.rank > known.rank else None
