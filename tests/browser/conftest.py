"""A real browser, and reports to open in it. Skipped, with a message, where there is none."""

from __future__ import annotations

import math
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from render.conftest import SAMPLES

from dynstab.core.estimate import Estimate, Label
from dynstab.core.report import Report
from dynstab.diagnostics import all_rules
from dynstab.render import write_html

INSTALL = "no browser: install Debian's chromium (apt-get install chromium) or name one in CHROMIUM=/path/to/it"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

OpenPage = Callable[..., Any]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, started once."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(INSTALL)
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[OpenPage]:
    """Opens a file in a fresh window and waits for its charts.

    The page carries `seen`: what it requested beside itself, said on the console, threw or asked.
    """
    windows = []

    def open_file(path: Path, *, mark: str = "", width: int = 1280, wait: bool = True, **options: Any) -> Any:
        window = browser.new_context(viewport={"width": width, "height": 900}, **options)
        windows.append(window)
        page = window.new_page()
        address, page.seen = path.as_uri() + mark, []
        page.on("request", lambda request: request.url != address and page.seen.append(f"request {request.url[-80:]}"))
        page.on("console", lambda message: page.seen.append(f"console {message.type}: {message.text}"))
        page.on("pageerror", lambda error: page.seen.append(f"error {error}"))
        page.on("dialog", lambda dialog: (page.seen.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.goto(address)
        if wait:
            page.wait_for_selector("html[data-drawn]", state="attached", timeout=30_000)
        return page

    yield open_file
    for window in windows:
        window.close()


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages by name: the samples, one of them with spectra, and a large one of 200 steps with 64 values each."""
    folder = tmp_path_factory.mktemp("pages")
    reports = {name: build() for name, build in SAMPLES.items()}
    reports["stable"] = with_spectra(reports["stable"], 8)
    reports["large"] = large(reports["stable"])
    paths = {name: folder / f"{name}.html" for name in reports}
    for name, report in reports.items():
        write_html(report, paths[name], rules=all_rules())
    return paths


def with_spectra(report: Report, count: int) -> Report:
    """The report with `count` singular values and eigenvalues at every step."""
    draw = random.Random(3)
    steps = tuple(
        step.model_copy(
            update={
                "singular_values": tuple(
                    Estimate(value=1.6 * math.exp(-3 * i / count), error=1e-3, label=Label.CERTIFIED, method="dense")
                    for i in range(count)
                ),
                "eigenvalues": tuple((draw.gauss(0.6, 0.3), draw.gauss(0, 0.3)) for _ in range(count)),
            }
        )
        for step in report.measurements.steps
    )
    return report.model_copy(update={"measurements": report.measurements.model_copy(update={"steps": steps})})


def large(report: Report) -> Report:
    """200 steps, 64 singular values and eigenvalues each."""
    info, measured = report.system.steps[0], report.measurements.steps[0]
    numbers = range(200)
    names = [f"transformer.h.{i // 2} [{'ln_1+attn' if i % 2 == 0 else 'ln_2+mlp'}]" for i in numbers]
    infos = (info.model_copy(update={"index": i, "name": names[i], "source": i, "target": i + 1}) for i in numbers)
    steps = (measured.model_copy(update={"index": i, "name": names[i]}) for i in numbers)
    system = report.system.model_copy(update={"steps": tuple(infos)})
    measurements = report.measurements.model_copy(update={"steps": tuple(steps)})
    return with_spectra(report.model_copy(update={"system": system, "measurements": measurements}), 64)
