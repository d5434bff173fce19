"""Every format, found by itself."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dynstab.core.errors import ConfigError
from dynstab.core.flag import Severity
from dynstab.core.report import Report
from dynstab.render import formats, render
from dynstab.render.formats.sarif import artifact_uri


@dataclass(frozen=True)
class _Rule:
    code: str
    name: str
    severity: Severity
    summary: str


RULES = (
    _Rule("DS101", "exploding-gradient", Severity.ERROR, "The gradient grows."),
    _Rule("DS999", "silent-rule", Severity.INFO, "Never fires here."),
)


def test_the_formats_are_those_of_the_contract() -> None:
    assert set(formats()) >= {"console", "html", "json", "markdown", "sarif", "junit"}


@pytest.mark.parametrize("format", formats())
def test_every_format_renders_every_report_and_the_same_twice(sample: tuple[str, Report], format: str) -> None:
    text = render(sample[1], format)
    assert text.endswith("\n")
    assert text == render(sample[1], format)
    assert text.encode("utf-8")


@pytest.mark.parametrize("format", formats())
def test_a_report_read_from_its_json_renders_alike(sample: tuple[str, Report], format: str) -> None:
    again = Report.model_validate_json(render(sample[1], "json"))
    assert render(again, format) == render(sample[1], format)


def test_json_is_the_report_itself(sample: tuple[str, Report]) -> None:
    text = render(sample[1], "json")
    assert json.loads(text)["schema_version"] == "1.0"
    assert Report.model_validate_json(text).to_json() == sample[1].to_json()
    assert "NaN" not in re.sub(r'"[^"]*"', '""', text)


def test_unknown_formats_and_options_are_told_with_those_that_exist(samples: dict[str, Report]) -> None:
    with pytest.raises(ConfigError, match="no format 'yaml'.*console, html, json, junit, markdown, sarif"):
        render(samples["empty"], "yaml")
    with pytest.raises(ConfigError, match="no option 'width'"):
        render(samples["empty"], "json", width=80)


def test_rendering_needs_no_torch(samples: dict[str, Report], tmp_path: Path) -> None:
    samples["broken"].save(tmp_path / "r.json")
    program = (
        "import sys; from dynstab.core.report import Report; from dynstab.render import formats, render; "
        f"[render(Report.load({str(tmp_path / 'r.json')!r}), name) for name in formats()]; "
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_sarif_has_what_the_standard_requires(sample: tuple[str, Report]) -> None:
    report = sample[1]
    log = json.loads(render(report, "sarif", rules=RULES))
    assert (log["version"], set(log)) == ("2.1.0", {"$schema", "version", "runs"})
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "dynstab"
    identifiers = [rule["id"] for rule in driver["rules"]]
    assert identifiers == sorted(set(identifiers))
    assert {"DS101", "DS999"} <= set(identifiers)
    assert all(rule["shortDescription"]["text"] for rule in driver["rules"])
    assert isinstance(run["invocations"][0]["executionSuccessful"], bool)
    assert len(run["results"]) == len(report.flags)
    for result, flag in zip(run["results"], report.flags, strict=True):
        assert identifiers[result["ruleIndex"]] == result["ruleId"] == flag.code
        assert result["level"] == {"error": "error", "warning": "warning", "info": "note"}[flag.severity]
        assert result["message"]["text"]
        assert all(isinstance(value, str) for value in result["partialFingerprints"].values())
        (location,) = result["locations"]
        names = [each["fullyQualifiedName"] for each in location["logicalLocations"]]
        assert names and len(names) == len(set(names))
        physical = location["physicalLocation"]
        assert run["artifacts"][physical["artifactLocation"]["index"]]["location"]["uri"]
        assert physical["region"]["startLine"] == 1


def test_sarif_locates_a_step_by_its_module_path(samples: dict[str, Report]) -> None:
    results = json.loads(render(samples["exploding"], "sarif"))["runs"][0]["results"]
    (outlier,) = (result for result in results if result["ruleId"] == "DS301")
    assert outlier["locations"][0]["logicalLocations"][0]["fullyQualifiedName"] == "layers.41.linear"
    assert outlier["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "mlp100.pt"


@pytest.mark.parametrize(
    ("source", "uri"),
    [
        ("models/my net.pt", "models/my%20net.pt"), ("/a/b#c.pt", "file:///a/b%23c.pt"), ("", ""),
        ("src/net.py:build", "src/net.py"), ("package.module:factory", "package.module%3Afactory"),
        ("C:\\nets\\a.pt", "file:///C:/nets/a.pt"),
    ],
)  # fmt: skip
def test_sources_become_uri_references(source: str, uri: str) -> None:
    assert artifact_uri(source) == uri


def test_junit_counts_its_cases_and_fails_on_warnings_and_errors(sample: tuple[str, Report]) -> None:
    report = sample[1]
    suites = ElementTree.fromstring(render(report, "junit", rules=RULES).encode())
    (suite,) = suites.findall("testsuite")
    cases = suite.findall("testcase")
    failures = suite.findall("testcase/failure")
    assert [suite.get("tests"), suite.get("failures")] == [str(len(cases)), str(len(failures))]
    serious = {flag.code for flag in report.flags if flag.severity is not Severity.INFO}
    unverified = [check for check in report.verification if not check.passed]
    assert len(failures) == len(serious) + len(unverified)
    assert len(cases) == len(report.verification) + len({flag.code for flag in report.flags} | {"DS101", "DS999"})


def test_junit_keeps_names_and_evidence_literally(samples: dict[str, Report]) -> None:
    suite = ElementTree.fromstring(render(samples["broken"], "junit").encode())
    text = "".join(suite.itertext())
    assert "<script>alert('x')</script>" in text
    assert r"]]> \x00" in text
    assert "largest = Infinity" in text


def test_markdown_lets_no_markup_through(samples: dict[str, Report]) -> None:
    page = render(samples["broken"], "markdown")
    assert set(re.findall(r"(?<!\\)<[^>]*?>", page)) <= {"<details>", "</details>", "<summary>", "</summary>"}
    assert r"\<script\>" in page
    assert r"pipe \| star \* tick \`" in page


def test_markdown_mentions_nobody(samples: dict[str, Report]) -> None:
    verdict = samples["empty"].verdict.model_copy(update={"summary": "Ask @somebody, see #12."})
    page = render(samples["empty"].model_copy(update={"verdict": verdict}), "markdown")
    assert "@somebody" not in page
    assert r"\#12" in page


def test_markdown_tables_have_as_many_cells_in_every_row(sample: tuple[str, Report]) -> None:
    page = render(sample[1], "markdown", all_steps=True)
    for block in re.findall(r"(?:^\|.*\|\n?)+", page, re.MULTILINE):
        cells = {len(re.findall(r"(?<!\\)\|", row)) for row in block.strip().splitlines()}
        assert len(cells) == 1


def test_markdown_states_verdict_findings_and_failed_checks(samples: dict[str, Report]) -> None:
    page = render(samples["exploding"], "markdown")
    assert page.startswith("# 🔴 Exploding\n")
    assert page.index("DS101 exploding-gradient") < page.index("DS301 outlier-step")
    assert "- ❌ steps' product equals autograd's gradient, off by 0.3" in page
    assert "*39 steps like these*" in page
