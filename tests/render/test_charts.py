"""The charts: every number that is drawn is one of the report's."""

from __future__ import annotations

import math

import networkx as nx
import pytest

from dynstab.core.report import Report
from dynstab.core.structure import LyapunovDecrease, Structure
from dynstab.render.charts import ORDER, chart, figures
from dynstab.render.charts.network import graph_of
from dynstab.render.charts.paint import label
from dynstab.render.html.strip import color, strip


def _traces(report: Report, name: str) -> dict[str, object]:
    return {trace.name: trace for trace in figures(report)[name].data}


def test_a_report_draws_the_charts_that_it_has_numbers_for(samples: dict[str, Report]) -> None:
    assert set(figures(samples["stable"])) == {"depth", "exponents", "gradient_flow", "network"}
    assert figures(samples["empty"]) == {}
    assert list(samples["stable"].figures()) == [name for name in ORDER if name in figures(samples["stable"])]


@pytest.mark.parametrize("name", ORDER)
def test_every_chart_says_what_it_shows(name: str) -> None:
    assert chart(name).TITLE and chart(name).ABOUT.endswith(".")


def test_gradient_flow_shows_the_measured_gain_at_every_state(samples: dict[str, Report]) -> None:
    flow = samples["exploding"].measurements.gradient_flow
    traces = figures(samples["exploding"])["gradient_flow"].data
    assert list(traces[0].y) == [point.gain.value for point in flow]
    assert list(traces[0].error_y.array) == [point.gain.error for point in flow]
    assert [point[0] for point in traces[0].customdata] == [point.state for point in flow]


def test_what_is_not_finite_leaves_a_gap_and_a_cross(samples: dict[str, Report]) -> None:
    traces = _traces(samples["broken"], "depth")
    drawn = [value for trace in traces.values() for value in trace.y if value is not None]  # type: ignore[attr-defined]
    assert all(math.isfinite(value) for value in drawn)
    assert len(traces["not finite"].x) == 3  # type: ignore[attr-defined]


def test_residual_steps_have_a_skip_path_in_the_graph(samples: dict[str, Report]) -> None:
    graph = graph_of(samples["stable"])
    assert nx.is_directed_acyclic_graph(graph)
    assert nx.shortest_path_length(graph, ("state", 0), ("state", 24)) == 24
    plain = graph_of(samples["exploding"])
    assert nx.shortest_path_length(plain, ("state", 0), ("state", 100)) == 200


def test_the_lyapunov_function_is_drawn_as_it_was_measured(samples: dict[str, Report]) -> None:
    report = samples["stable"]
    values = (2.0, 0.5, -1.0, -math.inf)
    structure = Structure(lyapunov=LyapunovDecrease(values=values))
    measurements = report.measurements.model_copy(update={"structure": structure})
    (trace,) = figures(report.model_copy(update={"measurements": measurements}))["lyapunov_function"].data
    assert list(trace.y) == [2.0, 0.5, -1.0, None]
    assert list(trace.x) == [0, 1, 2, 3]


def test_steps_over_time_are_no_graph(samples: dict[str, Report]) -> None:
    report = samples["exploding"]
    system = report.system.model_copy(update={"kind": "time"})
    assert "network" in figures(report)
    assert "network" not in figures(report.model_copy(update={"system": system}))


def test_a_name_cannot_bring_markup_into_a_chart() -> None:
    assert label("<a href='javascript:x'>&amp;</a>") == "&lt;a href='javascript:x'&gt;&amp;amp;&lt;/a&gt;"


def test_the_strip_has_a_cell_for_every_step_and_marks_findings(samples: dict[str, Report]) -> None:
    cells = strip(samples["exploding"])
    assert [cell.index for cell in cells] == list(range(100))
    assert [cell.index for cell in cells if cell.severity] == [41]


def test_shrinking_is_blue_and_growing_is_orange() -> None:
    def channels(text: str) -> tuple[int, int]:
        return int(text[1:3], 16), int(text[5:7], 16)

    red, blue = channels(color(-1.0, 1.0))
    assert blue > red
    red, blue = channels(color(1.0, 1.0))
    assert red > blue
    assert color(math.inf, 1.0) == color(5.0, 1.0)
    assert color(None, 1.0) == color(math.nan, 1.0)
