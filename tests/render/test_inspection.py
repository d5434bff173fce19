"""The page of a system that was not measured."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from dynstab.core.inspection import Cost, Inspection
from dynstab.core.report import Report
from dynstab.render.inspection import inspection_text


def _inspection(report: Report) -> Inspection:
    return Inspection(
        model=report.model,
        system=report.system,
        verification=report.verification,
        routes=report.provenance.routes,
        effort="standard",
        cost=Cost(
            products=12480,
            seconds_per_product=0.0123,
            seconds=153.5,
            bytes_per_tangent=3 * 2**19,
            recorded_bytes=2**30,
        ),
    )


def test_every_step_is_listed_with_its_kind_state_and_parameters(samples: dict[str, Report]) -> None:
    text = inspection_text(_inspection(samples["exploding"]))
    assert all(f"layers.{index}.linear" in text for index in range(100))
    (row,) = (each for each in text.splitlines() if each.startswith("41 "))
    assert row.split() == ["41", "layers.41.linear", "plain", "64", "64", "0"]


def test_alike_steps_of_a_recurrence_are_listed_at_both_ends(samples: dict[str, Report]) -> None:
    report = samples["exploding"]
    system = report.system.model_copy(update={"kind": "time"})
    text = inspection_text(_inspection(report.model_copy(update={"system": system})))
    assert "⋮ 94 steps like these, 3-96" in text
    assert [index for index in range(100) if f"layers.{index}.linear" in text] == [0, 1, 2, 97, 98, 99]


def test_cost_checks_and_first_state_are_told(samples: dict[str, Report]) -> None:
    text = inspection_text(_inspection(samples["stable"]))
    assert "about 2 min 34 s" in text
    assert "12,480, each 12.3 ms" in text
    assert "1.5 MiB a tangent, 1 GiB for the recorded run" in text
    assert "from state 0, input 64 x 768, 49,152 entries" in text
    assert "✓ adjoint identity" in text


def test_a_coefficient_other_than_one_is_shown(samples: dict[str, Report]) -> None:
    report = samples["stable"]
    steps = (report.system.steps[0].model_copy(update={"residual_coefficient": 0.5}), *report.system.steps[1:])
    system = report.system.model_copy(update={"steps": steps})
    assert "residual 0.500" in inspection_text(_inspection(report.model_copy(update={"system": system})))


@pytest.mark.parametrize("width", [20, 80, 200])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_console_of_any_width_and_encoding_shows_it_line_for_line(
    sample: tuple[str, Report], width: int, encoding: str
) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    Console(file=stream, width=width).print(_inspection(sample[1]))
    lines = raw.getvalue().decode(encoding).splitlines()
    assert max(map(cell_len, lines)) <= width
    if encoding == "utf-8":
        assert [line.rstrip() for line in lines] == inspection_text(_inspection(sample[1]), width=width).splitlines()


def test_an_inspection_as_text_is_its_page(samples: dict[str, Report]) -> None:
    inspection = _inspection(samples["empty"])
    assert str(inspection) == inspection_text(inspection)
    assert "None: nothing lies between" in str(inspection)
