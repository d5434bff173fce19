"""`dynstab analyze` on files: streams, files and exit codes."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from click.testing import Result

from dynstab.core.report import Report

QUICK = ("--effort", "quick", "-k", "2", "--input", "randn:8,32")
Run = Callable[..., Result]
Process = Callable[..., CompletedProcess[str]]


def test_a_stable_network_is_called_stable(dynstab: Run, models: dict[str, Path]) -> None:
    result = dynstab("analyze", models["stable"], *QUICK)
    assert result.exit_code == 0
    assert "stable" in result.stdout.lower()


def test_an_exploding_network_is_called_exploding(exploding_report: Path) -> None:
    report = Report.load(exploding_report)
    assert report.verdict.kind == "exploding"
    assert all(check.passed for check in report.verification)
    assert report.model.source.endswith("exploding.pt")


@pytest.mark.process
def test_results_go_to_stdout_and_the_rest_to_stderr(process: Process, models: dict[str, Path]) -> None:
    done = process("analyze", models["exploding"], *QUICK, "--json", "-")
    assert done.returncode == 0, done.stderr
    assert Report.model_validate_json(done.stdout).verdict.kind == "exploding"
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_json_goes_to_a_file_beside_the_console_report(dynstab: Run, models: dict[str, Path], tmp_path: Path) -> None:
    result = dynstab("analyze", models["stable"], *QUICK, "--json", tmp_path / "r.json")
    assert result.exit_code == 0
    assert Report.load(tmp_path / "r.json").verdict.summary
    assert not result.stdout.lstrip().startswith("{")
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


@pytest.mark.parametrize(
    ("fail_on", "code"), [("error", 1), ("warning", 1), ("DS101", 1), ("exploding-gradient", 1), ("DS102", 0)]
)
def test_fail_on_turns_findings_into_exit_code_1(dynstab: Run, exploding_report: Path, fail_on: str, code: int) -> None:
    assert dynstab("render", exploding_report, "--fail-on", fail_on).exit_code == code


def test_analyze_fails_on_findings_and_still_reports(dynstab: Run, models: dict[str, Path]) -> None:
    result = dynstab("analyze", models["exploding"], *QUICK, "--fail-on", "error", "--format", "json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["verdict"]["kind"] == "exploding"


def test_select_and_ignore_choose_the_rules(dynstab: Run, models: dict[str, Path]) -> None:
    both = ("analyze", models["exploding"], *QUICK, "--format", "json", "--fail-on", "error")
    assert dynstab(*both, "--ignore", "DS").exit_code == 0
    selected = json.loads(dynstab(*both, "--select", "DS101,DS4").stdout)
    assert {flag["code"] for flag in selected["flags"]} >= {"DS101"}
    assert all(flag["code"] == "DS101" or flag["code"].startswith("DS4") for flag in selected["flags"])


def test_the_same_seed_gives_the_same_numbers(dynstab: Run, models: dict[str, Path]) -> None:
    def measurements(seed: int) -> dict[str, object]:
        result = dynstab("analyze", models["exploding"], *QUICK, "--format", "json", "--seed", seed)
        return json.loads(result.stdout)["measurements"]

    assert measurements(1) == measurements(1)
    assert measurements(1) != measurements(2)


def test_weights_are_analyzed_with_their_architecture(dynstab: Run, models: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "architecture.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(*(layer for _ in range(4) for layer in (nn.Linear(32, 32), nn.Identity())))\n"
    )
    result = dynstab("analyze", models["weights"], "--model", "architecture.py:make", *QUICK, "--format", "json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["verdict"]["kind"] == "stable"


def test_a_loss_gives_the_cotangents(dynstab: Run, models: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "losses.py").write_text("def first(output):\n    return output[:, 0].sum()\n")
    plain = dynstab("analyze", models["stable"], *QUICK, "--format", "json")
    given = dynstab("analyze", models["stable"], *QUICK, "--format", "json", "--loss", "losses.py:first")
    assert given.exit_code == 0, given.stderr
    method = [json.loads(each.stdout)["measurements"]["gradient_flow"][0]["gain"]["method"] for each in (plain, given)]
    assert method[0] != method[1]


def test_an_interrupted_analysis_delivers_what_it_has_and_exits_with_130(
    dynstab: Run, models: dict[str, Path], exploding_report: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = Report.load(exploding_report)
    partial = report.model_copy(update={"provenance": report.provenance.model_copy(update={"interrupted": True})})
    monkeypatch.setattr("dynstab.cli.work.analyze", lambda *_, **__: partial)
    result = dynstab("analyze", models["exploding"], "--format", "json")
    assert result.exit_code == 130
    assert Report.model_validate_json(result.stdout) == partial


@pytest.mark.parametrize("format", ["json", "markdown", "sarif", "junit", "console"])
def test_every_format_renders_again_without_the_model(dynstab: Run, exploding_report: Path, format: str) -> None:
    result = dynstab("render", exploding_report, "--format", format)
    assert result.exit_code == 0
    if format == "json":
        assert Report.model_validate_json(result.stdout) == Report.load(exploding_report)
    elif format == "sarif":
        assert json.loads(result.stdout)["version"] == "2.1.0"
    elif format == "junit":
        assert ElementTree.fromstring(result.stdout).tag == "testsuites"
    else:
        assert "exploding" in result.stdout.lower()


def test_inspect_shows_the_steps_without_measuring(dynstab: Run, models: dict[str, Path]) -> None:
    result = dynstab("inspect", models["stable"], "--input", "randn:8,32")
    assert result.exit_code == 0, result.stderr
    assert "0" in result.stdout
    assert "products" in result.stdout


def test_what_a_model_prints_is_not_mixed_with_results(dynstab: Run, tmp_path: Path) -> None:
    (tmp_path / "talkative.py").write_text(
        "import torch\n"
        "class Talkative(torch.nn.Linear):\n"
        "    def forward(self, x):\n"
        "        print('chatter')\n"
        "        return super().forward(x)\n"
        "def make():\n"
        "    return Talkative(4, 4), torch.randn(8, 4)\n"
    )
    result = dynstab("analyze", "talkative.py:make", "--effort", "quick", "--json", "-")
    assert Report.model_validate_json(result.stdout).model.class_name == "Talkative"
    assert "chatter" in result.stderr


def test_an_input_without_a_batch_is_one_input(dynstab: Run, models: dict[str, Path]) -> None:
    result = dynstab("analyze", models["stable"], "--effort", "quick", "--input", "randn:32", "--json", "-")
    report = Report.model_validate_json(result.stdout)
    assert (report.provenance.samples, report.measurements.network.batch_coupled) == (1, False)
    assert all(check.passed for check in report.verification)
    assert "1 input where 8 make a claim" in report.verdict.summary


def test_an_input_of_zeros_is_no_explosion(dynstab: Run, models: dict[str, Path]) -> None:
    result = dynstab("analyze", models["stable"], "--effort", "quick", "--input", "zeros:8,32", "--json", "-")
    report = Report.model_validate_json(result.stdout)
    assert report.verdict.kind in ("stable", "inconclusive")
    assert all(check.passed for check in report.verification)
