"""Help is instant: nothing heavy is imported to print it."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "scipy", "pydantic", "rich", "jinja2", "dynstab.core.report")

pytestmark = pytest.mark.process


def _modules_after(*arguments: str) -> tuple[str, set[str]]:
    script = (
        "import sys\n"
        "from dynstab.cli import app\n"
        f"app({list(arguments)!r}, prog_name='dynstab', standalone_mode=False)\n"
        "print('MODULES', *sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    text, _, modules = result.stdout.rpartition("MODULES")
    return text, set(modules.split())


@pytest.mark.parametrize("command", [(), ("analyze",), ("inspect",), ("render",), ("rule",), ("demo",)])
def test_help_imports_nothing_heavy(command: tuple[str, ...]) -> None:
    text, modules = _modules_after(*command, "--help")
    assert "Usage: dynstab" in text
    assert not modules.intersection(HEAVY)


def test_rules_are_read_without_torch() -> None:
    text, modules = _modules_after("rule", "exploding-gradient")
    assert "exploding-gradient" in text
    assert "torch" not in modules


def test_the_package_imports_nothing_heavy() -> None:
    script = "import sys, dynstab; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not set(result.stdout.split()).intersection(HEAVY)
