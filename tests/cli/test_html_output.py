"""`--html` and `dynstab compare`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from render.conftest import SAMPLES

from dynstab.cli.app import app


@pytest.fixture
def saved(tmp_path: Path) -> dict[str, Path]:
    """Two saved reports by name."""
    paths = {name: tmp_path / f"{name}.json" for name in ("stable", "exploding")}
    for name, path in paths.items():
        SAMPLES[name]().save(path)
    return paths


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_a_saved_report_becomes_a_page_without_its_model(saved: dict[str, Path], tmp_path: Path) -> None:
    result = _run("render", saved["stable"], "--html", tmp_path / "r.html")
    assert result.exit_code == 0, result.output
    text = (tmp_path / "r.html").read_text()
    assert text.startswith("<!doctype html>") and 'id="rule-DS101"' in text
    assert "STABLE" in result.output


def test_shared_assets_are_an_option(saved: dict[str, Path], tmp_path: Path) -> None:
    for name, path in saved.items():
        assert _run("render", path, "--html", tmp_path / f"{name}.html", "--assets", "shared").exit_code == 0
    assert len(list(tmp_path.glob("*.js"))) == 1


def test_a_missing_folder_is_told_at_once(saved: dict[str, Path]) -> None:
    result = _run("render", saved["stable"], "--html", "no/such/folder/r.html")
    assert result.exit_code == 2
    assert "no/such/folder" in result.output


def test_two_saved_reports_are_compared(saved: dict[str, Path], tmp_path: Path) -> None:
    page = tmp_path / "c.html"
    result = _run("compare", saved["stable"], saved["exploding"], "--html", page)
    assert result.exit_code == 0, result.output
    assert "exploding-gradient" in result.output and "came" in result.output
    assert "2 reports compared" in page.read_text()


def test_a_comparison_is_json_on_request(saved: dict[str, Path]) -> None:
    result = _run("compare", saved["stable"], saved["exploding"], "--json", "-")
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["names"] == [str(saved["stable"]), str(saved["exploding"])]


def test_one_target_is_not_compared(saved: dict[str, Path]) -> None:
    result = _run("compare", saved["stable"])
    assert result.exit_code == 2
    assert "two or more" in result.output
