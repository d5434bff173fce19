"""A report as JUnit XML: a test case for every check of the capture and every rule."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from dynstab.core.flag import Flag, Severity
from dynstab.core.report import Check, Report
from dynstab.render.formats.sarif import RuleSummary
from dynstab.render.ink import printable
from dynstab.render.numbers import brief, evidence


def render(report: Report, *, rules: Iterable[RuleSummary] = ()) -> str:
    """A rule's case fails where it found a warning or an error; its evidence is in system-out.

    Args:
        rules: all that were run. Without them, only the rules that found something have a case.
    """
    name = report.model.source or report.model.class_name
    suites = Element("testsuites", name="dynstab")
    suite = SubElement(suites, "testsuite", name=printable(name), timestamp=printable(report.provenance.created))
    suite.set("time", f"{report.provenance.seconds:.3f}")
    for check in report.verification:
        _check_case(suite, check)
    found: dict[tuple[str, str], list[Flag]] = {(rule.code, rule.name): [] for rule in rules}
    for flag in report.flags:
        found.setdefault((flag.code, flag.name), []).append(flag)
    for (code, rule), flags in sorted(found.items()):
        _rule_case(suite, f"{code} {rule}", flags)
    for each in (suite, suites):
        _count(each)
    SubElement(suite, "system-out").text = printable(f"{report.verdict.kind}: {report.verdict.summary}")
    ElementTree.indent(suites)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(suites, encoding="unicode")}\n'


def _check_case(suite: Element, check: Check) -> None:
    case = SubElement(suite, "testcase", classname="dynstab.verification", name=printable(check.check), time="0")
    deviation = "no deviation given" if check.error is None else f"off by {brief(check.error)}"
    text = printable(f"{deviation}; {check.detail}" if check.detail else deviation)
    if not check.passed:
        SubElement(case, "failure", type="verification", message=text).text = text
    SubElement(case, "system-out").text = text


def _rule_case(suite: Element, name: str, flags: Sequence[Flag]) -> None:
    case = SubElement(suite, "testcase", classname="dynstab.rules", name=printable(name), time="0")
    failing = sorted((flag for flag in flags if flag.severity is not Severity.INFO), key=lambda f: -f.severity.rank)
    if failing:
        failure = SubElement(case, "failure", type=failing[0].severity.value, message=printable(failing[0].message))
        failure.text = "\n".join(line for flag in failing for line in _lines(flag))
    if flags:
        SubElement(case, "system-out").text = "\n".join(line for flag in flags for line in _evidence(flag))


def _lines(flag: Flag) -> list[str]:
    return [
        printable(f"{flag.severity.value}: {flag.where}: {flag.message}"),
        *(printable(f"  try: {advice}") for advice in flag.advice),
    ]


def _evidence(flag: Flag) -> list[str]:
    head = printable(f"{flag.severity.value}: {flag.where}: {flag.message}")
    return [head, *(printable(f"  {name} = {evidence(value)}") for name, value in flag.evidence.items())]


def _count(element: Element) -> None:
    element.set("tests", str(len(element.findall(".//testcase"))))
    element.set("failures", str(len(element.findall(".//failure"))))
    element.set("errors", "0")
    element.set("skipped", "0")
