"""A training run on the console and as HTML: where it began comes first, and every number is one of the run's."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from rich.console import Console
from run_cases import BEGAN, diverged, info, lost, settled

from dynstab.core.flag import Flag, Severity
from dynstab.core.run import Incident, PostMortem, Run, RunInfo
from dynstab.core.run_series import Curve, curves
from dynstab.render.run import heatmaps
from dynstab.render.run.charts import CHARTS, figures
from dynstab.render.run.console import RunPage, columns, run_text
from dynstab.render.run.groups import group_states
from dynstab.render.run.lines import record_line
from dynstab.render.run.page import page, write_run_html
from dynstab.render.run.words import beginning, course, kind

EMPTY = Run(info=info())


def _changed(run: Run, **changes: object) -> Run:
    return run.model_copy(update=changes)


def _flag(step: int, severity: Severity, where: str = "blocks.3") -> Incident:
    return Incident(step=step, flag=Flag(code="DS701", name="x-spike", severity=severity, where=where, message="m"))


def test_the_beginning_is_the_first_warning_and_its_lead_over_the_first_error() -> None:
    assert beginning(diverged()) == (
        "It began at step 124: update-spike at embed (DS703), 36 steps before the first error, loss-spike at step 160."
    )


@pytest.mark.parametrize(
    ("changes", "words", "state"),
    [
        ({}, "No warning up to step 199.", "quiet"),
        ({"incidents": (_flag(3, Severity.INFO),)}, "No warning up to step 199.", "quiet"),
        (
            {"incidents": (_flag(3, Severity.WARNING),)},
            "It began at step 3: x-spike at blocks.3 (DS701). No error followed.",
            "warned",
        ),
        ({"incidents": (_flag(3, Severity.ERROR, "network"),)}, "It began at step 3: x-spike (DS701).", "failing"),
        (
            {"incidents": (_flag(3, Severity.WARNING),), "post_mortems": (PostMortem(step=4, reason="r"),)},
            "It began at step 3: x-spike at blocks.3 (DS701), 1 step before the first post-mortem at step 4.",
            "failing",
        ),
    ],
)  # fmt: skip
def test_a_run_is_told_in_one_sentence_and_one_word(changes: dict, words: str, state: str) -> None:
    run = _changed(settled(), **changes)
    assert (beginning(run), kind(run)) == (words, state)


def test_a_run_of_which_nothing_is_known_says_so() -> None:
    assert beginning(EMPTY) == "Nothing was recorded yet."
    assert "No record yet." in run_text(EMPTY)
    assert "Nothing was recorded yet." in page(EMPTY)
    assert curves(EMPTY) == () and figures(EMPTY) == {}


def test_the_loss_that_is_lost_is_told() -> None:
    assert course(diverged()) == "Loss 2.40 at step 0, NaN at step 199, not finite since step 197."
    assert course(settled()) == "Loss 2.40 at step 0, 0.393 at step 199, lowest 0.393 at step 193."


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("run", [settled(), diverged(), EMPTY], ids=["settled", "diverged", "empty"])
def test_no_line_is_wider_than_the_page(run: Run, width: int) -> None:
    assert max(map(len, run_text(run, width=width).splitlines())) <= width


def test_a_live_page_shows_the_newest_findings_within_its_height() -> None:
    many = tuple(_flag(step, Severity.WARNING, f"blocks.{step}") for step in range(50))
    console = Console(file=io.StringIO(), width=80, _environ={})
    console.print(RunPage(_changed(diverged(), incidents=many), live=True, height=20))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) <= 20
    assert [line.split(" · ")[0] for line in lines if "x-spike" in line and line.startswith("▲")] == [
        f"▲ step {step}" for step in (49, 48, 47, 46)
    ]


def test_names_of_others_never_break_the_terminal() -> None:
    nasty = "\x1b[31m[red]evil\n"
    run = _changed(diverged(), info=info().model_copy(update={"model": nasty, "groups": (nasty,) * 8}))
    text = run_text(_changed(run, incidents=(_flag(3, Severity.ERROR, nasty),)))
    assert "\x1b" not in text and "[red]evil" in text


def test_an_ascii_terminal_gets_ascii() -> None:
    console = Console(file=io.TextIOWrapper(io.BytesIO(), encoding="ascii"), width=80, _environ={})
    console.print(RunPage(diverged()))
    console.file.flush()
    assert "It began at step 124" in console.file.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]


def test_a_number_that_was_lost_is_not_shown_as_it_was_before() -> None:
    run = lost(at=100)
    known = {curve.name: (curve.now(199), curve.lost) for curve in curves(run)}
    assert all(math.isnan(now or 0.0) for name, (now, since) in known.items() if since is not None)
    assert {name: since for name, (_, since) in known.items()} == {
        "loss": 100,
        "learning_rate": None,
        "gradient_norm": 100,
        "largest_relative_update": 100,
        "largest_activation_rms": 100,
        "nonfinite_fraction": None,
        "leading_exponent": 100,
        "gradient_gain": 100,
        "sharpness": 120,
        "sharpness_over_threshold": 120,
    }
    text = run_text(run)
    assert "Not finite since step 100: loss, gradient norm" in text
    groups = text[text.index("Groups of parameters now") : text.index("Findings")].splitlines()
    assert [line.split()[:4] for line in groups[2:4]] == [
        ["embed", "NaN", "since", "100"],
        ["blocks.0", "NaN", "since", "102"],
    ]
    assert "not finite since step 100</dd>" in page(run)


def test_a_series_that_was_not_taken_is_not_one_that_was_lost() -> None:
    signals = diverged().signals
    assert not signals[1].update_norm and dict(curves(diverged())[3].points).keys() == {s.step for s in signals[::2]}
    unheard = signals[0].model_copy(
        update={"activation_rms": (2.0, math.nan), "nonfinite_fraction": (0.0, math.nan), "gradient_norm": ()}
    )
    found = {curve.name: curve.points for curve in curves(Run(info=info(), signals=(unheard,)))}
    assert found["largest_activation_rms"] == ((0, 2.0),) and "gradient_norm" not in found


def test_a_number_that_is_not_taken_any_more_ends() -> None:
    run = _changed(settled(), probes=settled().probes[:3])
    exponent = next(curve for curve in curves(run) if curve.name == "leading_exponent")
    assert (exponent.now(60), exponent.now(61)) == (exponent.last, None)
    assert columns(exponent, 0, 199, 10)[-4:] == [None] * 4
    assert "Not taken since step 40: leading exponent, ln gradient gain" in run_text(run)
    assert "not taken since step 40, when it was" in page(run)


def test_a_post_mortem_is_put_down_to_the_finding_that_it_names() -> None:
    spikes = [_flag(124, Severity.WARNING) for _ in range(2)]
    struck = [
        each.model_copy(update={"flag": each.flag.model_copy(update={"name": name})})
        for each, name in zip(spikes, ("loss-spike", "gradient-spike"), strict=True)
    ]
    death = PostMortem(step=124, reason="DS702 loss-spike: the loss has jumped")
    run = _changed(settled(), incidents=(_flag(100, Severity.WARNING), *struck), post_mortems=(death,))
    assert beginning(run).endswith("24 steps before the first post-mortem, for loss-spike at step 124.")


def test_numbers_of_probes_say_what_they_are() -> None:
    assert "lower bounds from directions" in " ".join(run_text(settled()).split())
    text = page(settled())
    assert "<td>≥0.0200</td>" in text and "≥ lower bound" in text
    assert "How the probes measure" not in run_text(_changed(settled(), probes=()))


def test_sparklines_share_one_axis_of_training_steps() -> None:
    curve = Curve(name="x", words="x", logarithmic=False, points=((0, 1.0), (50, 3.0), (51, 2.0), (99, math.nan)))
    assert columns(curve, 0, 99, 4)[:3] == [1.0, 1.0, 3.0]
    assert math.isnan(columns(curve, 0, 99, 4)[3] or 0.0)
    assert columns(curve, -100, 99, 4) == [None, None, 1.0, pytest.approx(math.nan, nan_ok=True)]


def test_groups_are_ranked_by_how_far_they_are_from_their_medians() -> None:
    states = group_states(diverged())
    assert [state.name for state in states[:3]] == ["embed", "blocks.0", "blocks.1"]
    signals = diverged().signals
    assert states[0].gradient == signals[-1].gradient_norm[0]
    median = sorted(signal.gradient_norm[0] for signal in signals)
    assert states[0].gradient_ratio == pytest.approx(signals[-1].gradient_norm[0] / ((median[99] + median[100]) / 2))


def test_of_a_run_that_was_thinned_the_page_says_how_much_it_shows() -> None:
    run = settled(20)
    assert "Over training  20 signals" in run_text(run)
    assert "Over training  20 of 12,000 signals" in run_text(run.model_copy(update={"thinned_from": 12_000}))


def test_every_record_is_one_line() -> None:
    run = diverged()
    lines = [record_line(each[-1]) for each in (run.signals, run.probes, run.incidents, run.post_mortems)]
    assert [line.split(":")[0] for line in lines] == ["step 199", "step 180", "step 160", "step 160"]
    assert "loss NaN" in lines[0] and "leading exponent 0.470" in lines[1]


def test_a_run_draws_the_charts_that_it_has_numbers_for() -> None:
    assert list(figures(diverged())) == [chart.name for chart in CHARTS]
    assert set(figures(_changed(diverged(), probes=()))) == {"course", "gradients", "updates", "activations"}
    assert set(figures(_changed(diverged(), signals=()))) == {"exponents", "gains", "flow", "sharpness"}


def test_findings_are_marked_in_every_chart() -> None:
    for _, figure in figures(diverged()).values():
        assert [shape.x0 for shape in figure.layout.shapes] == [160, 124]


def test_the_heatmap_of_gains_shows_the_measured_ones() -> None:
    run = diverged()
    (heat,) = figures(run)["gains"][1].data
    assert list(heat.x) == [probe.step for probe in run.probes]
    assert [[row[i] for row in heat.z] for i in range(len(run.probes))] == [
        pytest.approx(probe.step_gains) for probe in run.probes
    ]


def test_the_upheaval_begins_where_it_began() -> None:
    rows = heatmaps.over_medians([(signal.step, signal.gradient_norm) for signal in diverged().signals])
    before = [values for step, values in rows if step <= BEGAN]
    assert max(abs(value) for values in before for value in values) < 0.01
    assert rows[-1][1][0] > 5 and abs(rows[-1][1][6]) < 0.01


def test_thinning_a_map_keeps_the_furthest_of_every_stretch() -> None:
    rows = [(step, (0.1, math.nan)) for step in range(2000)]
    rows[1234] = (1234, (-3.0, math.inf))
    steps, columns_ = heatmaps.thinned(rows)
    assert len(steps) <= heatmaps.MOST_COLUMNS
    at = max(i for i, step in enumerate(steps) if step <= 1234)
    assert columns_[at] == [-3.0, math.inf]
    assert all(math.isnan(column[1]) for i, column in enumerate(columns_) if i != at)


def test_the_scale_shows_what_came_before_a_run_blew_up() -> None:
    rows = [(step, (0.1 * step,)) for step in range(97)] + [(97 + i, (1e6,)) for i in range(3)]
    drawn = heatmaps.figure(rows, ["a"], unit="ln")
    assert drawn is not None and 9.0 < drawn.data[0].zmax < 10.0
    assert list(drawn.data[0].z[0]) == pytest.approx([value for _, (value,) in rows])


def test_a_flat_map_is_not_magnified_and_infinity_is_the_end_of_the_scale() -> None:
    flat = heatmaps.figure([(0, (1e-6,)), (1, (-1e-6,))], ["a"], unit="ln")
    assert flat is not None and flat.data[0].zmax == heatmaps.LEAST_SPAN
    torn = heatmaps.figure([(0, (7.0,)), (1, (-math.inf,)), (2, (math.nan,))], ["a"], unit="ln")
    assert torn is not None and list(torn.data[0].x) == [0, 1]
    assert list(torn.data[0].z[0]) == [7.0, -7.0] and torn.data[0].zmax == 7.0
    assert heatmaps.figure([(0, (math.nan,))], ["a"], unit="ln") is None


def test_the_page_escapes_what_others_named_and_links_post_mortems(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"
    facts = RunInfo(**{**info().model_dump(), "model": evil, "groups": (evil,) * 8})
    run = _changed(diverged(), info=facts, incidents=(_flag(3, Severity.ERROR, evil),))
    (tmp_path / "pages").mkdir()
    write_run_html(run, tmp_path / "pages" / "r.html", store=tmp_path / "runs" / "a.sqlite")
    text = (tmp_path / "pages" / "r.html").read_text()
    assert evil not in text and "&lt;img src=x" in text
    assert 'href="../runs/a-post-mortem-160.json"' in text
    assert len(text) < 2_300_000


def test_the_page_holds_the_rules_that_spoke() -> None:
    from dynstab.diagnostics.over_time import rules_over_time

    spoke, *silent = rules_over_time()
    flag = _flag(3, Severity.WARNING)
    incident = flag.model_copy(update={"flag": flag.flag.model_copy(update={"code": spoke.code})})
    text = page(_changed(settled(), incidents=(incident,)), rules=rules_over_time())
    assert f'id="rule-{spoke.code}"' in text and f'href="#rule-{spoke.code}"' in text
    assert not any(f'id="rule-{rule.code}"' in text for rule in silent)
