"""What holds for every command: defaults, interruption, streams, unexpected errors."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import click
import pytest
from click.testing import Result

from dynstab.cli import app, options
from dynstab.core.config import Config

Run = Callable[..., Result]


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Let the command `rule` do something else."""

    def plant(deed: Callable[[], object]) -> None:
        @click.command()
        @options.debug_option
        def command() -> None:
            deed()

        monkeypatch.setattr("dynstab.cli.commands.rule.command", command)

    return plant


def test_an_unexpected_error_is_one_line_with_the_way_on(dynstab: Run, planted: Callable[..., None]) -> None:
    planted(lambda: {}["missing"])
    result = dynstab("rule")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "Error: unexpected KeyError: 'missing'; run again with --debug for the traceback"
    ]


def test_an_interruption_is_130(dynstab: Run, planted: Callable[..., None]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    planted(interrupt)
    result = dynstab("rule")
    assert (result.exit_code, result.stdout) == (130, "")


def test_warnings_of_other_libraries_show_with_debug_alone(
    dynstab: Run, planted: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(warnings, "showwarning", lambda message, *_: shown.append(str(message)))
    planted(lambda: warnings.warn("elsewhere", stacklevel=1))
    assert dynstab("rule").exit_code == 0
    assert shown == []
    assert dynstab("rule", "--debug").exit_code == 0
    assert shown == ["elsewhere"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_file_that_cannot_be_written_does_not_take_the_report_with_it(dynstab: Run, exploding_report: Path) -> None:
    result = dynstab("render", exploding_report, "--json", "/dev/full")
    assert result.exit_code == 2
    assert "/dev/full cannot be written (No space left on device)" in result.stderr
    assert "EXPLODING" in result.stdout
    assert not Path("/dev/full").is_file()


def test_a_folder_in_the_place_of_a_file_is_told_before_the_work(dynstab: Run, tmp_path: Path) -> None:
    result = dynstab("analyze", "no-such-model.pt", "--html", tmp_path)
    assert result.exit_code == 2
    assert f"--html {tmp_path} is a folder; expected a file" in result.stderr


@pytest.mark.process
def test_a_reader_that_goes_away_is_no_error() -> None:
    command = [sys.executable, "-c", "import sys; from dynstab.cli import main; main()", "rule"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == ""
    assert running.returncode == 141


@pytest.mark.process
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("arguments", [("render", "run.json", "--json", "copy.json"), ("rule",), ("--help",)])
def test_a_full_stdout_is_told_in_a_sentence_and_files_are_written_first(
    exploding_report: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "run.json").write_bytes(exploding_report.read_bytes())
    command = [sys.executable, "-m", "dynstab", *arguments]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "stdout cannot be written (No space left on device)" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    if "copy.json" in arguments:
        assert (tmp_path / "copy.json").read_bytes() == exploding_report.read_bytes()


@pytest.mark.process
def test_a_reader_that_goes_away_leaves_the_files_that_were_asked_for(exploding_report: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dynstab", "render", str(exploding_report), "--json", "copy.json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path) as running:
        assert running.stdout is not None
        running.stdout.close()
    assert running.returncode == 141
    assert (tmp_path / "copy.json").read_bytes() == exploding_report.read_bytes()


def test_defaults_stand_in_the_nearest_pyproject(dynstab: Run, exploding_report: Path, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.dynstab]\nformat = "json"\nfail-on = "error"\nselect = "DS1"\n')
    result = dynstab("render", exploding_report)
    assert result.exit_code == 1
    assert result.stdout.startswith("{")
    assert not dynstab("render", exploding_report, "--format", "console").stdout.startswith("{")


def test_defaults_are_of_the_options_types(dynstab: Run, models: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.dynstab]\nk = 2\neffort = "quick"\ninput = ["randn:8,32"]\nselect = "DS1"\nignore = ["DS4", "DS5"]\n'
    )
    result = dynstab("analyze", models["stable"], "--format", "json")
    assert result.exit_code == 0, result.stderr
    for line in ('"k": 2', '"effort": "quick"', '"DS1"', '"DS5"'):
        assert line in result.stdout


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("trust-pickle = true", "'trust-pickle'"),
        ('model = "evil.py:make"', "model"),
        ('json = "anywhere"', "json"),
        ("colour = 1", "colour"),
        ("colour = 1", " fail-on,"),
        ("select = [", "TOML"),
    ],
)
def test_a_project_cannot_set_what_runs_code_or_is_unknown(dynstab: Run, tmp_path: Path, line: str, word: str) -> None:
    (tmp_path / "pyproject.toml").write_text(f"[tool.dynstab]\n{line}\n")
    result = dynstab("rule")
    assert result.exit_code == 2
    assert word in result.stderr


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[tool.dynstab]\neffort = "fast"', "sets 'effort' to a wrong value: 'fast' is not one of 'quick'"),
        ('[tool.dynstab]\nk = "a"', "sets 'k' to a wrong value: 'a' is not"),
        ("[tool.dynstab]\nk = [1, 2]", "sets 'k' to a wrong value: [1, 2] is not one value"),
        ("[tool.dynstab]\ninput = {a = 1}", "sets 'input' to a wrong value: {'a': 1} is not one value"),
        ("[tool]\ndynstab = 3", "is 3; expected a table, [tool.dynstab]"),
    ],
)
def test_a_wrong_value_in_a_project_is_told_with_the_file_it_stands_in(
    dynstab: Run, tmp_path: Path, text: str, sentence: str
) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    result = dynstab("rule")
    assert result.exit_code == 2
    assert sentence in result.stderr and str(tmp_path / "pyproject.toml") in result.stderr


def test_options_and_config_speak_the_same_words() -> None:
    @options.config_options
    @options.rule_options
    def command() -> None: ...

    offered = {option.name: option for option in command.__click_params__}  # type: ignore[attr-defined]
    assert offered.keys() == Config.model_fields.keys()
    for name, field in Config.model_fields.items():
        choices = getattr(offered[name].type, "choices", None)
        if choices is not None:
            allowed = [value for part in (field.annotation, *get_args(field.annotation)) for value in get_args(part)]
            assert set(choices) == {value for value in allowed if isinstance(value, str)}
        if field.default not in (None, ()):
            assert offered[name].default == field.default


def test_every_command_has_help(dynstab: Run) -> None:
    names = app.list_commands(click.Context(app))
    assert {"analyze", "inspect", "render", "rule", "demo"} <= set(names)
    for name in names:
        result = dynstab(name, "--help")
        assert result.exit_code == 0
        assert f"Usage: dynstab {name}" in result.stdout


def test_formats_are_those_of_the_renderers() -> None:
    from dynstab.render import formats

    assert formats() == options.FORMATS


def test_the_version_is_the_packages(dynstab: Run) -> None:
    import dynstab as package

    assert dynstab("--version").stdout == f"dynstab {package.__version__}\n"
