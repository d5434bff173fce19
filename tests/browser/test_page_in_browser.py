"""The page in a real browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dynstab.compare import compare
from dynstab.core.report import Report
from dynstab.render import write_comparison, write_html
from dynstab.render.html.packing import packed

STEPS = 24


def _time(page: Any, mark: str) -> float:
    """Seconds from the beginning of the load until the page reached `mark`."""
    return page.evaluate(f"performance.getEntriesByName('{mark}')[0].startTime") / 1000


def _best(open_page: Any, path: Path, mark: str) -> float:
    """The faster of two loads: what else the machine does is not the page's fault."""
    return min(_time(open_page(path), mark) for _ in range(2))


@pytest.mark.parametrize("name", ["stable", "exploding", "broken", "empty"])
def test_a_page_is_quiet_and_alone_and_fits_into_any_window(open_page: Any, pages: dict[str, Path], name: str) -> None:
    page = open_page(pages[name])
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.seen == []


def test_a_page_of_24_steps_is_ready_in_time(open_page: Any, pages: dict[str, Path]) -> None:
    assert _best(open_page, pages["stable"], "ready") < 1.5


def test_a_page_of_200_steps_is_drawn_in_time(open_page: Any, pages: dict[str, Path]) -> None:
    assert _best(open_page, pages["large"], "drawn") < 4.0


def test_packed_text_of_any_length_is_read_back(open_page: Any, pages: dict[str, Path]) -> None:
    page = open_page(pages["empty"])
    read = """async (text) => { const stream = new Blob([decode(text)]).stream();
        return new Response(stream.pipeThrough(new DecompressionStream("gzip"))).text(); }"""
    texts = ["äß<&>`" * count + "~" * (count % 3) for count in range(1, 9)]
    assert len({len(packed(text)) % 5 for text in texts}) > 2
    assert [page.evaluate(read, packed(text)) for text in texts] == texts


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_keeps_readers_out(open_page: Any, pages: dict[str, Path], scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.base", reason="pip install axe-playwright-python")
    page = open_page(pages["stable"], color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    page.evaluate("choose(3)")
    page.evaluate(Path(axe.AXE_FILE_PATH).read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")["violations"]
    grave = [each for each in found if each["impact"] in ("serious", "critical")]
    assert [(each["id"], [node["target"] for node in each["nodes"]][:3]) for each in grave] == []


def _marked(page: Any, chart: str) -> int:
    return page.evaluate(f"(document.getElementById('chart-{chart}').layout.shapes || []).length")


def _assert_chosen(page: Any, step: int) -> None:
    assert page.evaluate("location.hash") == f"#step-{step}"
    assert page.locator("#detail").is_visible()
    assert page.locator("#detail-title").inner_text().startswith(f"Step {step} ")
    assert page.evaluate("[...document.querySelectorAll('tr.chosen')].map((row) => row.id)") == [f"step-{step}"]
    band = page.evaluate("document.getElementById('chart-depth').layout.shapes.at(-1)")
    assert (band["x0"], band["x1"]) == (step - 0.5, step + 0.5)
    assert page.evaluate("document.getElementById('chart-eigenvalues').data[1].x.length") == 8


def test_a_step_that_is_chosen_in_the_table_is_marked_everywhere(open_page: Any, pages: dict[str, Path]) -> None:
    page = open_page(pages["stable"])
    before = _marked(page, "network")
    page.locator("#step-17 a").click()
    _assert_chosen(page, 17)
    assert _marked(page, "network") == before + 1
    page.keyboard.press("ArrowRight")
    _assert_chosen(page, 18)
    page.locator("#previous").click()
    _assert_chosen(page, 17)
    page.keyboard.press("Escape")
    assert not page.locator("#detail").is_visible()
    assert page.evaluate("location.hash") == ""
    assert _marked(page, "network") == before


def test_a_step_is_chosen_by_a_click_into_a_chart(open_page: Any, pages: dict[str, Path]) -> None:
    page = open_page(pages["stable"])
    chart = page.locator("#chart-singular_values")
    chart.scroll_into_view_if_needed()
    place = page.evaluate(
        """() => { const plot = document.getElementById('chart-singular_values'), box = plot.getBoundingClientRect(),
        {xaxis, yaxis} = plot._fullLayout;
        return [box.x + xaxis._offset + xaxis.d2p(5), box.y + yaxis._offset + yaxis.d2p(3)]; }"""
    )
    page.mouse.move(*place)
    page.mouse.click(*place)
    page.wait_for_selector("#detail:not([hidden])")
    _assert_chosen(page, 5)


def test_a_link_of_its_own_opens_a_step(open_page: Any, pages: dict[str, Path]) -> None:
    page = open_page(pages["stable"], mark="#step-17")
    assert page.evaluate(
        "(r => 0 <= r.top && r.bottom <= innerHeight)(document.getElementById('step-17').getBoundingClientRect())"
    )
    _assert_chosen(page, 17)
    assert "Hutchinson, 16 probes" in page.locator("#detail-body").inner_text()


def test_dark_mode_reaches_the_charts(open_page: Any, pages: dict[str, Path]) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    ink = "document.getElementById('chart-depth')._fullLayout.font.color"
    page = open_page(pages["stable"], color_scheme="dark")
    assert (page.evaluate(ground), page.evaluate(ink)) == ("rgb(20, 23, 27)", "#e7e9ec")
    page.locator("#theme").click()
    assert (page.evaluate(ground), page.evaluate(ink)) == ("rgb(255, 255, 255)", "#1b1e23")


def test_print_shows_every_section_on_white(open_page: Any, pages: dict[str, Path]) -> None:
    page = open_page(pages["stable"], color_scheme="dark")
    assert len(page.pdf(format="A4")) > 100_000
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    heights = page.evaluate(
        "[...document.querySelectorAll('main section')].map((each) => [each.id, each.offsetHeight])"
    )
    assert {"findings", "depth", "spectra", "exponents", "states", "network", "steps", "method", "rules"} <= {
        name for name, _ in heights
    }
    assert all(height > 40 for _, height in heights)
    assert page.evaluate("document.querySelectorAll('details:not([open], .silent)').length") == 0
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("document.getElementById('chart-depth')._fullLayout.width") <= 700
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.querySelectorAll('details[open]').length") == 0


def test_without_a_script_the_page_still_tells_all(open_page: Any, pages: dict[str, Path]) -> None:
    page = open_page(pages["stable"], wait=False, java_script_enabled=False)
    assert page.locator("h1").is_visible()
    assert page.locator("#step-table tbody tr").count() == STEPS
    assert page.locator(".strip svg a").count() == STEPS
    assert not page.locator("#detail").is_visible()
    assert page.seen == []


def test_markup_in_names_never_runs(open_page: Any, pages: dict[str, Path]) -> None:
    page = open_page(pages["broken"])
    page.locator("#step-0 a").click()
    assert "<script>alert('x')</script>" in page.locator("#detail-title").inner_text()
    assert page.evaluate("document.querySelectorAll('script').length") == 4
    assert page.seen == []


def test_the_table_sorts_filters_and_copies(open_page: Any, pages: dict[str, Path]) -> None:
    page = open_page(pages["exploding"], permissions=["clipboard-read", "clipboard-write"])
    page.locator("th[title='RMS gain ‖J‖²/d'] button").click()
    assert page.evaluate("document.querySelector('#step-table tbody tr').id") == "step-41"
    page.get_by_role("button", name="step", exact=True).click()
    assert page.evaluate("document.querySelector('#step-table tbody tr').id") == "step-0"
    page.locator("#filter").fill("layers.4")
    assert page.locator("#count").inner_text() == "11 of 100 steps"
    page.locator("#flagged").check()
    assert page.locator("#count").inner_text() == "1 of 100 steps"
    page.locator("#flagged").uncheck()
    page.locator("#filter").fill("0.9")  # in numbers, but in no name
    assert page.locator("#count").inner_text() == "0 of 100 steps"
    page.locator("#copy").click()
    page.locator("#count", has_text="copied").wait_for()
    lines = page.evaluate("csv()").splitlines()
    assert len(lines) == 101
    assert lines[0].startswith("index,name,kind,block,rms_gain,rms_gain_error,rms_gain_label")


def test_the_report_can_be_saved_again(open_page: Any, pages: dict[str, Path], tmp_path: Path) -> None:
    page = open_page(pages["stable"])
    with page.expect_download() as download:
        page.locator("#save").click()
    download.value.save_as(tmp_path / "again.json")
    again = Report.load(tmp_path / "again.json")
    assert len(again.measurements.steps) == STEPS


def test_pages_share_a_script_that_lies_beside_them(open_page: Any, pages: dict[str, Path], tmp_path: Path) -> None:
    page = open_page(pages["stable"])
    report = Report.model_validate_json(page.evaluate("JSON.stringify(report)"))
    write_html(report, tmp_path / "r.html", assets="shared")
    shared = open_page(tmp_path / "r.html")
    assert [each for each in shared.seen if not each.endswith(".js")] == []
    assert shared.evaluate("document.querySelectorAll('.plot .main-svg').length") > 4


def test_a_comparison_shows_one_report_of_a_series_at_a_time(
    open_page: Any, pages: dict[str, Path], tmp_path: Path
) -> None:
    page = open_page(pages["stable"])
    report = Report.model_validate_json(page.evaluate("JSON.stringify(report)"))
    write_comparison(compare([report, report, report], ["a", "b", "c"]), tmp_path / "c.html")
    page = open_page(tmp_path / "c.html")
    page.locator("#slider").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.locator("#shown").inner_text().endswith("b")
    traces = json.loads(page.evaluate("JSON.stringify(document.getElementById('chart-depth').data)"))
    assert {trace["meta"]["report"] for trace in traces if trace["opacity"] == 1} == {1}
    assert page.locator("#step-table tbody tr:visible").count() == 0
    page.locator("#moved").uncheck()
    assert page.locator("#step-table tbody tr:visible").count() > STEPS
    assert page.seen == []
