"""A report as SARIF 2.1.0, which code hosts show beside the code.

Reference:
    OASIS, Static Analysis Results Interchange Format (SARIF) Version 2.1.0 (2020).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable
from typing import Any, Protocol
from urllib.parse import quote

from dynstab.core.flag import Flag, Severity
from dynstab.core.report import Report
from dynstab.render.ink import printable

_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
_REFERENCE = re.compile(r"(?P<file>.+\.py):[A-Za-z_][\w.]*")


class RuleSummary(Protocol):
    """What is said of a rule that was run, whether it fired or not."""

    @property
    def code(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def severity(self) -> Severity: ...
    @property
    def summary(self) -> str: ...


def render(report: Report, *, rules: Iterable[RuleSummary] = ()) -> str:
    """One run: its rules (those of the flags at least), results, and the model as artifact."""
    described = _rules(report, rules)
    order = {rule["id"]: index for index, rule in enumerate(described)}
    run: dict[str, Any] = {
        "tool": {"driver": {"name": "dynstab", "version": report.provenance.dynstab, "rules": described}},
        "invocations": [{"executionSuccessful": not report.provenance.interrupted}],
        "results": [_result(flag, order[flag.code], report) for flag in report.flags],
        "columnKind": "unicodeCodePoints",
        "properties": {
            "verdict": report.verdict.model_dump(mode="json"),
            "created": report.provenance.created,
        },
    }
    uri = artifact_uri(report.model.source)
    if uri:
        run["artifacts"] = [{"location": {"uri": uri}, "roles": ["analysisTarget"]}]
    log = {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}
    return json.dumps(_jsonable(log), indent=1, allow_nan=False) + "\n"


def artifact_uri(source: str) -> str:
    """The file that a source names, as a URI reference; "" for a model that came from no file."""
    reference = _REFERENCE.fullmatch(source)
    path = (reference["file"] if reference else source).replace("\\", "/")
    if re.match(r"[A-Za-z]:/", path):
        return f"file:///{path[:2]}{quote(path[2:])}"
    # A colon in a relative path would read as a scheme: quote it.
    return ("file://" if path.startswith("/") else "") + quote(path)


def _rules(report: Report, rules: Iterable[RuleSummary]) -> list[dict[str, Any]]:
    known = {rule.code: (rule.name, rule.severity, rule.summary) for rule in rules}
    for flag in report.flags:
        known.setdefault(flag.code, (flag.name, flag.severity, flag.name.replace("-", " ").capitalize() + "."))
    return [
        {
            "id": code,
            "name": name,
            "shortDescription": {"text": summary},
            "defaultConfiguration": {"level": _LEVELS[severity]},
        }
        for code, (name, severity, summary) in sorted(known.items())
    ]


def _result(flag: Flag, rule: int, report: Report) -> dict[str, Any]:
    where = f"{flag.where}: " if flag.where else ""
    advice = "".join(f"\n- {advice}" for advice in flag.advice)
    identity = "\n".join((report.model.source, flag.code, flag.where))
    return {
        "ruleId": flag.code,
        "ruleIndex": rule,
        "level": _LEVELS[flag.severity],
        "message": {"text": printable(where + flag.message) + advice},
        "locations": [_location(flag, report)],
        "partialFingerprints": {"dynstab/v1": hashlib.sha256(identity.encode()).hexdigest()},
        "properties": {"where": flag.where, "steps": list(flag.steps), "evidence": flag.evidence},
    }


def _location(flag: Flag, report: Report) -> dict[str, Any]:
    """Where in the model, and, as code hosts ask for a file and a line, the model's file at line 1."""
    steps = {step.index: step for step in report.system.steps}
    named = {steps[index].block or steps[index].name: steps[index].name for index in flag.steps if index in steps}
    modules = [{"fullyQualifiedName": path, "name": name, "kind": "module"} for path, name in named.items() if path]
    location: dict[str, Any] = {
        "logicalLocations": modules or [{"fullyQualifiedName": report.model.class_name, "kind": "type"}]
    }
    uri = artifact_uri(report.model.source)
    if uri:
        location["physicalLocation"] = {"artifactLocation": {"uri": uri, "index": 0}, "region": {"startLine": 1}}
    return location


def _jsonable(value: Any) -> Any:
    """`value` with non-finite numbers as the strings of report.json."""
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
