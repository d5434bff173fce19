"""`dynstab demo`: two networks, two files, two verdicts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from click.testing import Result

from dynstab.core.report import Report


@pytest.mark.process
def test_the_demo_tells_the_stable_from_the_exploding_network(
    process: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    done = process("demo", "--out", "out", "--effort", "quick", "--epochs", 5)
    assert done.returncode == 0, done.stderr
    for kind in ("stable", "exploding"):
        report = Report.load(tmp_path / "out" / f"{kind}.json")
        assert report.verdict.kind == kind
        assert all(check.passed for check in report.verification)
        assert not report.model.trusted
        assert f"{kind}.pt" in done.stdout
        assert "</html>" in (tmp_path / "out" / f"{kind}.html").read_text()


def test_without_scikit_learn_the_demo_says_what_to_install(
    dynstab: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    result = dynstab("demo")
    assert result.exit_code == 2
    assert "dynstab[demo]" in result.stderr


def test_a_folder_that_cannot_be_made_is_named(dynstab: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = dynstab("demo", "--out", "file/inside")
    assert result.exit_code == 2
    assert "file/inside" in result.stderr


def test_an_effort_that_does_not_exist_is_refused_before_anything_is_trained(
    dynstab: Callable[..., Result], tmp_path: Path
) -> None:
    result = dynstab("demo", "--effort", "foo")
    assert result.exit_code == 2
    assert "'quick', 'standard', 'thorough'" in result.stderr
    assert not list(tmp_path.iterdir())
