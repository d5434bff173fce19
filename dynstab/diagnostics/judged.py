"""A report with its findings and its verdict."""

from __future__ import annotations

from typing import Any

from dynstab.core.flag import Verdict
from dynstab.core.report import Report
from dynstab.diagnostics.facts import Facts
from dynstab.diagnostics.registry import diagnose
from dynstab.diagnostics.verdict import verdict

_OPEN = Verdict(kind="inconclusive", summary="not judged yet", confidence="low")


def judged(**parts: Any) -> Report:
    """The report of these parts (all but `flags` and `verdict`), with the flags of the rules that its config selects.

    Raises:
        ConfigError: the config selects a rule that does not exist.
    """
    report = Report(**parts, flags=(), verdict=_OPEN)
    facts, config = Facts.of(report), report.provenance.config
    flags = diagnose(facts, select=config.select, ignore=config.ignore)
    return report.model_copy(update={"flags": flags, "verdict": verdict(facts, flags)})
