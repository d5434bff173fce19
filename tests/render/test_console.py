"""The console page: golden renders, widths, encodings, hostile names."""

from __future__ import annotations

import io
import math
import os
import re
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from dynstab.core.estimate import Estimate, Label
from dynstab.core.flag import Flag, Severity
from dynstab.core.measurements import StepMeasurement
from dynstab.core.report import Report
from dynstab.render import print_report, render
from dynstab.render.ink import shorten

GOLDEN = Path(__file__).parent / "golden"
HOSTILE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e]")


def _printed(report: Report, *, encoding: str = "utf-8", **options: object) -> str:
    """What a stream of that encoding receives; strict, as real streams are."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="strict", newline="\n")
    print_report(report, Console(file=stream, **options))  # type: ignore[arg-type]
    stream.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize(
    ("name", "width", "shown"),
    [
        ("a.b.layers.7 [norm + attention]", 40, "a.b.layers.7 [norm + attention]"),
        ("a.b.layers.7 [norm + attention]", 21, "…7 [norm + attention]"),
        ("a.b.layers.7 [norm + attention]", 16, "…7 [norm + att…]"),
        ("a.b.layers.7 [norm + attention]", 6, "…tion]"),
        ("layer1.0 [conv1 + bn1 + conv2 + bn2]", 28, "layer1.0 [conv1 + bn1 + co…]"),
        ("layer1.0 [conv1 + bn1 + conv2 + bn2]", 20, "…0 [conv1 + bn1 +…]"),
        ("a_very_long_name_without_a_dot", 10, "…out_a_dot"),
        ("encoder.stages.3.blocks.11.conv", 20, "…3.blocks.11.conv"),
        ("漢字.漢字.漢字", 9, "…漢字"),
        ("abc", 0, ""),
    ],
)
def test_a_short_name_keeps_what_tells_it_from_its_siblings(name: str, width: int, shown: str) -> None:
    assert shorten(name, width) == shown


@pytest.mark.parametrize("width", [80, 200])
def test_page_equals_its_golden_render(sample: tuple[str, Report], width: int) -> None:
    name, report = sample
    page = render(report, "console", width=width)
    path = GOLDEN / f"{name}_{width}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(page, encoding="utf-8")
    assert page == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [20, 40, 79, 80, 100, 133, 200])
def test_no_line_is_wider_than_the_page(sample: tuple[str, Report], width: int) -> None:
    for encoding in ("utf-8", "ascii"):
        lines = _printed(sample[1], encoding=encoding, width=width).splitlines()
        assert max(map(cell_len, lines)) <= width


def test_verdict_is_the_first_line(sample: tuple[str, Report]) -> None:
    report = sample[1]
    first = render(report).splitlines()[0]
    assert report.verdict.kind.upper() in first
    assert report.verdict.summary.split()[0] in first


def test_flags_stand_most_severe_first(samples: dict[str, Report]) -> None:
    page = render(samples["exploding"])
    assert page.index("DS101 exploding-gradient") < page.index("DS301 outlier-step") < page.index("Along depth")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_stream_that_is_not_utf8_gets_ascii(sample: tuple[str, Report], encoding: str) -> None:
    page = _printed(sample[1], encoding=encoding, width=80)
    assert page.isascii()
    assert sample[1].verdict.kind.upper() in page


def test_names_are_never_markup_and_never_control_the_terminal(samples: dict[str, Report]) -> None:
    page = _printed(samples["broken"], width=200, color_system=None)
    for literal in (
        "[bold]red[/bold]",
        "<script>",
        "[blink]Nothing[/blink]",
        "[link=x]y[/link]",
        r"\x1b[2J",
        r"\u202e",
    ):
        assert literal in page
    assert not HOSTILE.search(page)


def test_no_color_leaves_no_color_codes(samples: dict[str, Report], monkeypatch: pytest.MonkeyPatch) -> None:
    report = samples["exploding"]
    colored = re.compile(r"\x1b\[[0-9;]*(3[0-7]|9[0-7]|38)[0-9;]*m")
    assert colored.search(_printed(report, width=80, force_terminal=True, color_system="standard"))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colored.search(_printed(report, width=80, force_terminal=True, color_system="standard"))


def test_colors_change_no_character(sample: tuple[str, Report]) -> None:
    plain = _printed(sample[1], width=80)
    colored = _printed(sample[1], width=80, force_terminal=True, color_system="truecolor")
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == plain


def test_a_hundred_steps_fit_on_a_screen_and_flagged_steps_are_among_them(samples: dict[str, Report]) -> None:
    report = samples["exploding"]
    table = render(report, width=80).split("\nSteps")[1].split("\nExponents")[0]
    assert len(table.splitlines()) < 20
    assert re.search(r"^41 ▲ layers\.41\.linear", table, re.MULTILINE)
    assert "39 steps like these, 2-40" in table
    assert "56 steps like these, 42-97" in table


def test_all_steps_shows_every_step(samples: dict[str, Report]) -> None:
    page = render(samples["exploding"], all_steps=True)
    assert all(re.search(rf"^ *{index} . layers\.{index}\.linear", page, re.MULTILINE) for index in range(100))
    assert "like these" not in page


def test_a_step_that_is_extreme_is_shown_without_any_flag(samples: dict[str, Report]) -> None:
    report = samples["exploding"].model_copy(update={"flags": ()})
    assert re.search(r"^41   layers\.41\.linear", render(report), re.MULTILINE)


def test_the_first_step_that_is_not_finite_is_shown(samples: dict[str, Report]) -> None:
    report = samples["exploding"]
    steps = [
        step.model_copy(update={"rms_gain": Estimate(value=math.nan)}) if step.index >= 63 else step
        for step in report.measurements.steps
    ]
    measured = report.measurements.model_copy(update={"steps": tuple(steps)})
    page = render(report.model_copy(update={"measurements": measured}))
    assert re.search(r"^63   layers\.63\.linear +plain +≈NaN", page, re.MULTILINE)


def test_a_word_longer_than_the_page_is_folded_not_cut(samples: dict[str, Report]) -> None:
    report = samples["empty"]
    word = "/".join(f"part{index}" for index in range(60))
    verdict = report.verdict.model_copy(update={"summary": word})
    page = render(report.model_copy(update={"verdict": verdict}), width=60)
    assert word in re.sub(r"\s", "", page)


def test_a_flag_on_most_steps_marks_none_of_them(samples: dict[str, Report]) -> None:
    table = render(samples["exploding"], all_steps=True).split("\nSteps")[1].split("\nExponents")[0]
    assert "✖" not in table
    assert table.count("▲") == 1


def test_a_bound_never_looks_like_a_value(samples: dict[str, Report]) -> None:
    report = samples["empty"]
    bounds = {Label.LOWER: "≥1.25", Label.UPPER: "≤1.25", Label.EXACT: "=1.25", Label.ESTIMATE: "≈1.25"}
    for label, shown in bounds.items():
        network = report.measurements.network.model_copy(update={"log_signal_gain": Estimate(value=1.25, label=label)})
        measured = report.measurements.model_copy(update={"network": network})
        assert shown in render(report.model_copy(update={"measurements": measured}))


def test_a_cell_that_departs_from_its_columns_label_bears_its_own_mark(samples: dict[str, Report]) -> None:
    report = samples["stable"]
    steps = list(report.measurements.steps)
    steps[3] = steps[3].model_copy(update={"rms_gain": Estimate(value=7.77, label=Label.UPPER)})
    measured = report.measurements.model_copy(update={"steps": tuple(steps)})
    table = render(report.model_copy(update={"measurements": measured})).split("\nSteps")[1]
    assert "χ ≈" in table
    assert "≤7.77" in table


def test_every_null_has_its_reason_and_the_steps_it_concerns(samples: dict[str, Report]) -> None:
    report = samples["stable"]
    steps = [
        StepMeasurement(**{**dict(step), "rms_gain": Estimate.unmeasured("too large")})
        if step.index in (2, 3, 4, 9)
        else step
        for step in report.measurements.steps
    ]
    measured = report.measurements.model_copy(update={"steps": tuple(steps)})
    assert "– not measured: too large (χ of steps 2-4, 9)" in render(
        report.model_copy(update={"measurements": measured})
    )


@pytest.mark.parametrize("format", ["console", "markdown"])
def test_a_long_spectrum_is_cut_and_says_so(samples: dict[str, Report], format: str) -> None:
    report = samples["exploding"]
    spectrum = tuple(Estimate(value=0.5 - 0.01 * i) for i in range(64))
    lyapunov = report.measurements.lyapunov.model_copy(update={"qr": spectrum})
    measured = report.measurements.model_copy(update={"lyapunov": lyapunov})
    page = render(report.model_copy(update={"measurements": measured}), format)
    assert "52 more of the QR exponents, down to ≈-0.130" in page
    assert "≈0.390" in page and "≈0.380" not in page


def test_failed_checks_and_inputs_that_were_made_up_are_told(samples: dict[str, Report]) -> None:
    assert "✗ steps' product equals autograd's gradient, off by 0.3" in render(samples["exploding"])
    assert "made up: randint 0..50257" in render(samples["stable"])
    assert "Interrupted: the report is partial" in render(samples["broken"])


def test_a_flag_that_names_unknown_steps_still_renders(samples: dict[str, Report]) -> None:
    flag = Flag(code="DS1", name="n", severity=Severity.ERROR, where="", steps=(999,), message="m")
    for name in ("empty", "exploding"):
        assert "✖ DS1 n" in render(samples[name].model_copy(update={"flags": (flag,)}))


def test_printing_a_report_shows_the_console_page(samples: dict[str, Report]) -> None:
    assert str(samples["stable"]) == render(samples["stable"], "console")
