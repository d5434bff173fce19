"""Whatever is wrong, the answer is exit code 2 and one clear message on stderr."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from click.testing import Result

Run = Callable[..., Result]


def assert_refused(result: Result, *words: str) -> None:
    """Exit code 2, nothing on stdout, a message with these words, no traceback."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr


class _Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, (f"open({str(self.path)!r}, 'w').close()",)


def test_a_pickle_that_needs_code_is_not_executed(dynstab: Run, tmp_path: Path) -> None:
    import torch

    torch.save(_Payload(tmp_path / "touched"), tmp_path / "evil.pt")
    result = dynstab("analyze", "evil.pt")
    assert_refused(result, "eval", "state_dict", "--allow-global", "--trust-pickle")
    assert not (tmp_path / "touched").exists()


def test_weights_without_an_architecture_ask_for_it(dynstab: Run, models: dict[str, Path]) -> None:
    assert_refused(dynstab("analyze", models["weights"]), "--model", "0.weight")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.pt", b""),
        ("random.pt", bytes(range(256)) * 16),
        ("image.pt", b"\x89PNG\r\n\x1a\n" + b"\0" * 64),
        ("plain.pt", pickle.dumps([1, 2, 3])),
    ],
    ids=["empty", "random", "image", "plain"],
)
def test_foreign_files_are_told_what_they_look_like(dynstab: Run, tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert_refused(dynstab("analyze", name), name)


def test_a_truncated_file_is_refused(dynstab: Run, models: dict[str, Path], tmp_path: Path) -> None:
    whole = models["stable"].read_bytes()
    (tmp_path / "half.pt").write_bytes(whole[: len(whole) // 2])
    assert_refused(dynstab("analyze", "half.pt"), "half.pt")


def test_a_missing_file_is_named(dynstab: Run) -> None:
    assert_refused(dynstab("analyze", "nowhere.pt"), "nowhere.pt")


def test_an_input_that_the_model_rejects_shows_the_models_own_error(dynstab: Run, models: dict[str, Path]) -> None:
    assert_refused(dynstab("analyze", models["stable"], "--input", "randn:8,33"), "33")


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ("randn", "randn:2,3"),
        ("randn:", "randn:2,3"),
        ("gauss:3", "gauss:3"),
        ("randn:2,x", "randn:2,x"),
        ("@nowhere.npy", "nowhere.npy"),
        ("randn:2,16:float99", "float99"),
    ],
)
def test_an_input_specification_that_cannot_be_read_shows_the_grammar(
    dynstab: Run, models: dict[str, Path], spec: str, word: str
) -> None:
    assert_refused(dynstab("analyze", models["stable"], "--input", spec), word)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--effort", "heroic"), "heroic"),
        (("-k", "0"), "0"),
        (("--device", "abacus"), "abacus"),
        (("--select", "DS999999"), "DS999999"),
        (("--ignore", "no-such-rule"), "no-such-rule"),
        (("--fail-on", "no-such-rule"), "no-such-rule"),
        (("--json", "no/such/folder/r.json"), "no/such/folder"),
        (("--format", "papyrus"), "papyrus"),
        (("--no-such-option",), "--no-such-option"),
        (("--loss", "no_colon"), "no_colon"),
        (("--loss", "no_such_module:loss"), "no_such_module"),
    ],
)
def test_an_option_that_cannot_be_served_is_refused_before_measuring(
    dynstab: Run, models: dict[str, Path], arguments: tuple[str, ...], word: str
) -> None:
    assert_refused(dynstab("analyze", models["stable"], "--input", "randn:8,32", *arguments), word)


def test_nan_in_the_weights_gives_a_report(dynstab: Run, models: dict[str, Path]) -> None:
    result = dynstab("analyze", models["nan"], "--input", "randn:8,32", "--effort", "quick", "--format", "json")
    assert result.exit_code == 0, result.stderr
    assert "non-finite" in {flag["name"] for flag in json.loads(result.stdout)["flags"]}


@pytest.mark.parametrize("content", ["", "{}", "[1", '{"schema_version": "9.0"}', "\x00"])
def test_what_is_no_report_is_not_rendered(dynstab: Run, tmp_path: Path, content: str) -> None:
    (tmp_path / "r.json").write_text(content)
    assert_refused(dynstab("render", "r.json"), "r.json")


def test_a_missing_report_is_named(dynstab: Run) -> None:
    assert_refused(dynstab("render", "nowhere.json"), "nowhere.json")


def test_an_unknown_command_suggests_one(dynstab: Run) -> None:
    assert_refused(dynstab("anlyze"), "anlyze", "analyze")


def test_a_file_in_place_of_a_command_is_understood(dynstab: Run, models: dict[str, Path]) -> None:
    assert_refused(dynstab(models["stable"]), f"dynstab analyze {models['stable']}")


def test_an_unknown_rule_suggests_one(dynstab: Run) -> None:
    assert_refused(dynstab("rule", "exploding-gradients"), "exploding-gradient")


@pytest.mark.process
def test_debug_shows_the_traceback(process: Callable[..., CompletedProcess[str]]) -> None:
    plain = process("render", "nowhere.json")
    debugged = process("render", "nowhere.json", "--debug")
    assert (plain.returncode, debugged.returncode) == (2, 2)
    assert "Traceback" not in plain.stderr
    assert "Traceback" in debugged.stderr


def test_inputs_without_a_number_are_refused(dynstab: Run, models: dict[str, Path]) -> None:
    assert_refused(dynstab("analyze", models["stable"], "--input", "randn:0,32"), "hold no number")


def test_a_list_that_was_cut_keeps_its_dots(dynstab: Run, models: dict[str, Path]) -> None:
    assert "...; name a callable" in dynstab("analyze", models["weights"]).stderr
