"""The HTML page as text: what a reader without a script, and an attacker without luck, would see."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dynstab.core.errors import ConfigError
from dynstab.core.estimate import Estimate
from dynstab.core.report import Report
from dynstab.diagnostics import all_rules
from dynstab.render import notebook_html, render, write_html
from dynstab.render.html.packing import shared_name
from dynstab.render.html.view import factor, tiles


class _Page(HTMLParser):
    """The text of a page outside scripts and styles, its elements, identifiers and links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._silent = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._silent += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.text += data

    def attributes(self, name: str) -> list[str]:
        return [value for _, own in self.tags if (value := own.get(name))]


def _data(text: str) -> dict:
    packed = re.search(r'<script type="text/plain" id="data">([^<]*)</script>', text)
    assert packed
    assert html.unescape(packed[1]) == packed[1]
    return json.loads(gzip.decompress(base64.b85decode(packed[1].translate(str.maketrans(",.:[", "&<>`")))))


def test_a_hundred_steps_fit_into_two_and_a_half_megabytes(samples: dict[str, Report]) -> None:
    assert len(render(samples["exploding"], "html", rules=all_rules()).encode()) < 2_500_000


def test_the_page_names_no_address_that_a_browser_would_load(sample: tuple[str, Report]) -> None:
    page = _Page(render(sample[1], "html", rules=all_rules()))
    assert not {tag for tag, _ in page.tags} & {"link", "img", "iframe", "object", "base"}
    assert all(address.startswith("#") for address in page.attributes("href"))
    assert page.attributes("src") == []


def test_every_link_has_its_target_and_every_name_is_given_once(sample: tuple[str, Report]) -> None:
    page = _Page(render(sample[1], "html", rules=all_rules()))
    names = page.attributes("id")
    assert len(names) == len(set(names))
    targets = {address[1:] for address in page.attributes("href")}
    assert targets <= set(names)
    assert {name for value in page.attributes("aria-labelledby") for name in value.split()} <= set(names)


def test_markup_in_names_and_messages_is_text(samples: dict[str, Report]) -> None:
    page = _Page(render(samples["broken"], "html"))
    assert "<script>alert('x')</script>" in page.text
    assert "NaN first appears in [bold]red[/bold] & <script>: ]]>" in page.text
    assert sum(tag == "script" for tag, _ in page.tags) == 3
    assert not any(name.startswith("on") for _, own in page.tags for name in own)


def test_charts_spell_out_markup_too(samples: dict[str, Report]) -> None:
    for figure in _data(render(samples["broken"], "html"))["figures"]:
        assert "<script" not in figure.replace("\\u003c", "<")


def test_only_the_scripts_of_the_page_may_run(samples: dict[str, Report]) -> None:
    text = render(samples["stable"], "html")
    page = _Page(text)
    policy = next(own["content"] for tag, own in page.tags if own.get("http-equiv") == "Content-Security-Policy")
    assert policy and "default-src 'none'" in policy and "script-src 'sha256-" in policy
    assert "unsafe-eval" not in policy and "script-src 'unsafe-inline'" not in policy
    code = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)[-1]
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in policy


def test_without_a_script_every_answer_is_there(samples: dict[str, Report]) -> None:
    report = samples["exploding"]
    text = _Page(render(report, "html", rules=all_rules())).text
    assert report.verdict.summary in text
    for flag in report.flags:
        assert flag.message in text
        assert all(advice in text for advice in flag.advice)
    for step in report.system.steps:
        assert step.name in text
    for check in report.verification:
        assert check.check in text
    assert "Hutchinson, 16 probes" in text and "@article{hutchinson1990," in text


def test_most_severe_findings_come_first(samples: dict[str, Report]) -> None:
    text = _Page(render(samples["exploding"], "html")).text
    assert text.index("exploding-gradient DS101") < text.index("outlier-step DS301")


def test_rules_are_documented_in_the_page_where_they_are_given(samples: dict[str, Report]) -> None:
    report = samples["exploding"]
    documented = render(report, "html", rules=all_rules())
    assert 'id="rule-DS101"' in documented and "What it flags" in documented
    assert 'id="rule-' not in render(report, "html")


def test_the_report_itself_is_in_the_page(sample: tuple[str, Report]) -> None:
    again = Report.model_validate_json(_data(render(sample[1], "html"))["report"])
    assert again.to_json() == sample[1].to_json()


def test_very_many_eigenvalues_are_rounded_and_the_page_says_so(samples: dict[str, Report]) -> None:
    draw = random.Random(5)
    report = samples["exploding"]
    steps = tuple(
        step.model_copy(update={"eigenvalues": tuple((draw.gauss(0, 1), draw.gauss(0, 1)) for _ in range(256))})
        for step in report.measurements.steps
    )
    many = report.model_copy(update={"measurements": report.measurements.model_copy(update={"steps": steps})})
    text = render(many, "html")
    assert len(text) < 2_500_000
    assert "rounded to six digits" in text and "rounded to six digits" not in render(report, "html")
    again = Report.model_validate_json(_data(text)["report"]).measurements.steps[7].eigenvalues[9]
    assert again == pytest.approx(steps[7].eigenvalues[9], rel=1e-5)


def test_shared_assets_lie_once_beside_the_pages(samples: dict[str, Report], tmp_path: Path) -> None:
    for name in ("stable", "exploding"):
        write_html(samples[name], tmp_path / f"{name}.html", assets="shared")
    assert {each.name for each in tmp_path.iterdir()} == {"exploding.html", "stable.html", shared_name()}
    text = (tmp_path / "stable.html").read_text()
    assert _Page(text).attributes("src") == [shared_name()]
    assert len(text) < 300_000
    with pytest.raises(ConfigError, match="inline or shared"):
        render(samples["stable"], "html", assets="cdn")


def test_a_report_writes_its_own_page(samples: dict[str, Report], tmp_path: Path) -> None:
    samples["stable"].to_html(tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert text == render(samples["stable"], "html", rules=all_rules())


def test_a_notebook_shows_verdict_and_findings_as_text(sample: tuple[str, Report]) -> None:
    text = notebook_html(sample[1])
    assert text == sample[1]._repr_html_()
    page = _Page(text)
    assert sample[1].verdict.kind.upper() in page.text
    assert all(flag.name in page.text for flag in sample[1].flags)
    assert not any(tag == "script" for tag, _ in page.tags)


@pytest.mark.parametrize(
    ("log", "text"),
    [(0.0, "× 1.00"), (2.0, "× 7.39"), (-2.0, "÷ 7.39"), (1000.0, "× e^1000"), (float("inf"), "× inf")],
)
def test_a_gain_reads_as_a_factor(log: float, text: str) -> None:
    assert factor(log) == text


@pytest.mark.parametrize(("log", "error", "text"), [(9.89, 0.1, "× 20000"), (0.65, 0.1, "× 1.9"), (-2.0, 0.3, "÷ 7")])
def test_a_gain_has_no_digit_that_its_error_does_not_allow(log: float, error: float, text: str) -> None:
    assert factor(log, error) == text


def test_a_gain_that_is_no_number_is_told_as_such(sample: tuple[str, Report]) -> None:
    report = sample[1]
    lost = Estimate(value=float("nan"), error=None, unit="nat", method="mean", outcome="non-finite in 8 of 8 inputs")
    network = report.measurements.network.model_copy(update={"log_signal_gain": lost})
    measurements = report.measurements.model_copy(update={"network": network})
    tile = tiles(report.model_copy(update={"measurements": measurements}))[2]
    assert (tile.answer, tile.detail) == ("not finite", "non-finite in 8 of 8 inputs")
