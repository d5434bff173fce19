"""A comparison on the console and as HTML."""

from __future__ import annotations

import json
from pathlib import Path

from dynstab.compare import compare
from dynstab.core.report import Report
from dynstab.render import write_comparison
from dynstab.render.comparison import MOST, comparison_text


def test_the_console_names_what_came_and_what_moved(samples: dict[str, Report]) -> None:
    text = str(compare([samples["stable"], samples["exploding"]], ["before", "after"]))
    assert "A before: stable" in text and "B after: exploding" in text
    assert any(
        line.startswith("came") and "DS101 exploding-gradient: none → error" in line for line in text.splitlines()
    )
    moved = next(line for line in text.splitlines() if line.startswith("G, ln relative gradient gain"))
    assert moved.endswith("≠")
    assert "0 of 124 steps in all reports" in text


def test_no_line_is_wider_than_the_page(sample: tuple[str, Report], samples: dict[str, Report]) -> None:
    found = compare([sample[1], samples["broken"], sample[1]])
    assert max(map(len, comparison_text(found, width=60).splitlines())) <= 60


def test_at_most_thirty_numbers_of_steps_are_listed(samples: dict[str, Report]) -> None:
    report = samples["stable"]
    steps = tuple(
        step.model_copy(
            update={
                name: getattr(step, name).model_copy(update={"value": 9.0, "error": 0.0})
                for name in ("rms_gain", "relative_gain", "norm_growth")
            }
        )
        for step in report.measurements.steps
    )
    other = report.model_copy(update={"measurements": report.measurements.model_copy(update={"steps": steps})})
    text = str(compare([report, other]))
    section = text[text.index("\nSteps") :]
    assert section.count(" of transformer.h.") == MOST
    assert "72 of" in section


def test_the_page_holds_every_report_and_escapes_their_names(samples: dict[str, Report], tmp_path: Path) -> None:
    found = compare([samples["stable"], samples["broken"], samples["stable"]], ["a", "<b>x</b>", "c"])
    write_comparison(found, tmp_path / "c.html")
    text = (tmp_path / "c.html").read_text()
    assert "<b>x</b>" not in text and "&lt;b&gt;x&lt;/b&gt;" in text
    assert 'id="slider"' in text
    assert len(text) < 2_300_000


def test_the_json_holds_the_differences_without_the_reports(samples: dict[str, Report]) -> None:
    data = json.loads(compare([samples["stable"], samples["exploding"]]).to_json())
    assert set(data) == {"names", "steps", "network", "differences", "flags"}
