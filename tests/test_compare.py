"""Comparison: a difference counts where it is larger than what the errors allow."""

from __future__ import annotations

import math

import pytest
from render.conftest import empty, exploding, stable

from dynstab.compare import compare, moved
from dynstab.core.errors import ConfigError
from dynstab.core.estimate import Estimate, Label
from dynstab.core.flag import Severity
from dynstab.core.report import Report, StepInfo


def _estimate(value: float | None, error: float | None = 0.1, label: Label = Label.ESTIMATE) -> Estimate:
    return Estimate(value=value, error=error, label=label)


@pytest.mark.parametrize(
    ("a", "b", "answer"),
    [
        (_estimate(1.0), _estimate(1.39), False),
        (_estimate(1.0), _estimate(1.41), True),
        (_estimate(1.0, 0.1, Label.CERTIFIED), _estimate(1.19, 0.1, Label.CERTIFIED), False),
        (_estimate(1.0, 0.1, Label.CERTIFIED), _estimate(1.21, 0.1, Label.CERTIFIED), True),
        (_estimate(1.0, None, Label.EXACT), _estimate(1.0 + 1e-9, None, Label.EXACT), False),
        (_estimate(1.0, None), _estimate(9.0), None),
        (_estimate(None), _estimate(9.0), None),
        (_estimate(1.0, 0.0, Label.LOWER), _estimate(9.0, 0.0, Label.EXACT), None),
        (_estimate(math.nan), _estimate(9.0), None),
        (_estimate(math.inf), _estimate(9.0), True),
        (_estimate(-math.inf), _estimate(-math.inf), False),
    ],
)
def test_numbers_differ_where_their_errors_do_not_reach(a: Estimate, b: Estimate, answer: bool | None) -> None:
    assert moved(a, b) is answer
    assert moved(b, a) is answer


def test_different_inputs_make_their_spread_an_error() -> None:
    a, b = (Estimate(value=v, error=0.0, label=Label.EXACT, spread=0.4, samples=16) for v in (1.0, 1.3))
    assert moved(a, b) is True
    assert moved(a, b, paired=False) is False
    report = stable()
    provenance = report.provenance.model_copy(update={"seed": 1})
    steps = tuple(
        step.model_copy(update={"norm_growth": step.norm_growth.model_copy(update={"value": 9.0, "spread": 99.0})})
        for step in report.measurements.steps
    )
    other = report.model_copy(update={"measurements": report.measurements.model_copy(update={"steps": steps})})
    assert sum(each.moved is True for each in compare([report, other]).differences) == 24
    redrawn = other.model_copy(update={"provenance": provenance})
    assert not any(each.moved for each in compare([report, redrawn]).differences)


def test_a_report_does_not_differ_from_itself() -> None:
    report = stable()
    found = compare([report, report])
    assert found.names == ("models/gpt2.pt (1)", "models/gpt2.pt (2)")
    assert not any(each.moved for each in (*found.network, *found.differences))
    assert all(each.change == 0 for each in found.network if each.change is not None)
    assert not any(flag.came or flag.went for flag in found.flags)


def test_findings_come_and_go() -> None:
    found = compare([stable(), exploding()], ["before", "after"])
    by_code = {flag.code: flag for flag in found.flags}
    assert by_code["DS101"].came and by_code["DS101"].severities == (None, Severity.ERROR)
    back = compare([exploding(), stable()])
    assert {flag.code for flag in back.flags if flag.went} >= {"DS101"}


def _named(report: Report, names: list[str]) -> Report:
    steps = tuple(StepInfo(index=i, name=n, kind="plain", source=i, target=i + 1) for i, n in enumerate(names))
    return report.model_copy(update={"system": report.system.model_copy(update={"steps": steps})})


def test_steps_are_matched_by_name_and_new_ones_stand_where_they_belong() -> None:
    first = _named(empty(), ["a", "b", "relu", "c", "relu"])
    second = _named(empty(), ["a", "new", "b", "relu", "relu", "end"])
    steps = compare([first, second]).steps
    assert [step.name for step in steps] == ["a", "new", "b", "relu", "c", "relu", "end"]
    assert [step.indices for step in steps] == [(0, 0), (None, 1), (1, 2), (2, 3), (3, None), (4, 4), (None, 5)]


def test_a_changed_step_is_found() -> None:
    report = stable()
    steps = list(report.measurements.steps)
    steps[7] = steps[7].model_copy(update={"rms_gain": _estimate(3.0, 0.01)})
    other = report.model_copy(update={"measurements": report.measurements.model_copy(update={"steps": tuple(steps)})})
    found = [each for each in compare([report, other]).differences if each.moved]
    assert [(each.step, each.quantity) for each in found] == [(7, "rms_gain")]


def test_one_report_is_no_comparison() -> None:
    with pytest.raises(ConfigError, match="two or more"):
        compare([stable()])
    with pytest.raises(ConfigError, match="one each"):
        compare([stable(), stable()], ["only"])
