"""The page of a training run in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from run_cases import diverged, info, settled

from dynstab.compare_runs import compare_runs
from dynstab.core.run import Run
from dynstab.diagnostics.over_time import rules_over_time
from dynstab.render.run.comparison_page import write_run_comparison
from dynstab.render.run.page import write_run_html


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    made = {"diverged": diverged(), "settled": settled(), "empty": Run(info=info())}
    for name, run in made.items():
        write_run_html(run, folder / f"{name}.html", store=folder / "a.sqlite", rules=rules_over_time())
    write_run_comparison(compare_runs([settled(), diverged()], ["good", "<b>bad</b>"]), folder / "compared.html")
    return {name: folder / f"{name}.html" for name in (*made, "compared")}


@pytest.mark.parametrize("name", ["diverged", "settled", "empty", "compared"])
def test_a_run_page_is_quiet_and_alone_and_fits_into_any_window(
    open_page: Any, runs: dict[str, Path], name: str
) -> None:
    page = open_page(runs[name])
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.seen == []


@pytest.mark.parametrize(("name", "scheme"), [("diverged", "light"), ("compared", "dark")])
def test_nothing_serious_keeps_readers_out_of_a_run(
    open_page: Any, runs: dict[str, Path], name: str, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.base", reason="pip install axe-playwright-python")
    page = open_page(runs[name], color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    page.evaluate(Path(axe.AXE_FILE_PATH).read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")["violations"]
    grave = [each for each in found if each["impact"] in ("serious", "critical")]
    assert [(each["id"], [node["target"] for node in each["nodes"]][:3]) for each in grave] == []


def test_the_page_of_a_run_says_first_where_it_began(open_page: Any, runs: dict[str, Path]) -> None:
    page = open_page(runs["diverged"])
    assert page.locator("h1").inner_text().startswith("It began at step 124: update-spike at embed")
    assert page.locator("#findings article").count() == 2
    assert page.locator(".plot .main-svg").count() > 8


def test_dark_mode_reaches_the_charts_of_a_run(open_page: Any, runs: dict[str, Path]) -> None:
    ink = "document.getElementById('chart-course')._fullLayout.font.color"
    page = open_page(runs["diverged"], color_scheme="dark")
    assert page.evaluate(ink) == "#e7e9ec"
    page.locator("#theme").click()
    assert page.evaluate(ink) == "#1b1e23"


def test_numbers_of_the_scales_stay_upright_on_a_narrow_page(open_page: Any, tmp_path: Path) -> None:
    run = settled()
    swelling = [
        signal.model_copy(update={"update_norm": [10 ** (0.012 * (signal.step - 100)) for _ in signal.update_norm]})
        for signal in run.signals
    ]
    write_run_html(
        run.model_copy(update={"signals": tuple(swelling)}),
        tmp_path / "run.html",
        store=tmp_path / "a.sqlite",
        rules=rules_over_time(),
    )
    page = open_page(tmp_path / "run.html", width=390)
    found = page.evaluate(
        "[...document.querySelectorAll('#chart-updates .cbaxis text')].map((each) => "
        "[each.textContent, /rotate\\((?!0)/.test(each.getAttribute('transform') || '')])"
    )
    assert found == [["−1", False], ["0", False], ["1", False]]


def test_all_charts_zoom_together(open_page: Any, runs: dict[str, Path]) -> None:
    page = open_page(runs["diverged"])
    page.evaluate("Plotly.relayout('chart-course', {'xaxis.range': [100, 150]})")
    ranges = (
        "['gains', 'sharpness', 'updates'].map((name) => document.getElementById('chart-' + name).layout.xaxis.range)"
    )
    page.wait_for_function(f"JSON.stringify({ranges}) === '[[100,150],[100,150],[100,150]]'", timeout=5000)


def test_without_a_script_a_run_still_tells_all(open_page: Any, runs: dict[str, Path]) -> None:
    page = open_page(runs["diverged"], wait=False, java_script_enabled=False)
    assert page.locator("h1").is_visible()
    assert page.locator("#probes tbody tr").count() == 10
    assert page.seen == []


def test_runs_that_are_compared_stand_over_one_axis(open_page: Any, runs: dict[str, Path]) -> None:
    page = open_page(runs["compared"])
    traces = page.evaluate("document.getElementById('chart-runs').data.map((each) => each.meta.report)")
    assert traces.count(0) >= 9 and traces.count(1) >= 9
    assert page.locator("#findings tbody tr").count() == 2
    assert page.evaluate("document.querySelectorAll('h2 b').length") == 0
