"""Rule documentation on the console."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from rich.console import Console

from dynstab.core.flag import Severity
from dynstab.render.rule_page import print_rule, print_rules


@dataclass(frozen=True)
class _Rule:
    code: str = "DS101"
    name: str = "exploding-gradient"
    severity: Severity = Severity.ERROR
    summary: str = "The gradient grows by more than e^7 through the depth [of it]."
    documentation: Mapping[str, str] = field(
        default_factory=lambda: {
            "What it flags": "G = ln(‖δ_0‖/‖δ_L‖) passes `7` on *relative* scale.",
            "What to do": "- Add normalization.\n- Scale **down** the initialization — by 1/√2.",
            "References": "- Schoenholz et al. (2017), [paper](https://example.org/p).",
        }
    )


def _page(encoding: str = "utf-8", width: int = 80) -> Console:
    return Console(file=io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True), width=width)


def _text(console: Console) -> str:
    return console.file.buffer.getvalue().decode(console.encoding)  # type: ignore[attr-defined]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_rule_shows_title_summary_and_every_heading_in_order(encoding: str) -> None:
    console = _page(encoding)
    print_rule(_Rule(), console)
    page = _text(console)
    places = [
        page.index(part)
        for part in ("DS101 exploding-gradient", "[of it]", "What it flags", "What to do", "References")
    ]
    assert places == sorted(places)
    assert "**" not in page and "`" not in page
    assert "normalization" in page and "https://example.org/p" in page


def test_the_table_has_a_row_for_each_rule() -> None:
    console = _page()
    print_rules([_Rule(), _Rule(code="DS201", name="short", severity=Severity.INFO)], console)
    lines = _text(console).splitlines()
    assert [line[:7] for line in lines if line[2:4] == "DS"] == ["✖ DS101", "● DS201"]
    assert max(map(len, lines)) <= 80
