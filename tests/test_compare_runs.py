"""Training runs side by side."""

from __future__ import annotations

import math

import pytest
from run_cases import diverged, info, lost, settled

from dynstab.compare_runs import compare_runs
from dynstab.core.errors import ConfigError
from dynstab.core.flag import Flag, Severity
from dynstab.core.run import Incident, Run
from dynstab.render.run.comparison import comparison_text


def test_a_run_does_not_differ_from_itself() -> None:
    found = compare_runs([diverged(), diverged()])
    assert found.parted is None
    assert [each.quantity for each in (*found.curves, *found.groups) if each.moved] == []
    assert not any(flag.came or flag.went for flag in found.flags)
    assert found.names == ("Transformer (1)", "Transformer (2)")


def test_what_came_is_told_with_its_step_and_what_went_without() -> None:
    found = compare_runs([settled(), diverged()])
    assert [(flag.code, flag.came, flag.first) for flag in found.flags] == [
        ("DS703", True, (None, 124)),
        ("DS706", True, (None, 160)),
    ]
    assert all(flag.went for flag in compare_runs([diverged(), settled()]).flags)


def test_the_losses_part_at_the_first_step_that_differs() -> None:
    found = compare_runs([settled(), diverged()])
    pairs = zip(settled().signals, diverged().signals, strict=True)
    assert found.parted == next(a.step for a, b in pairs if a.loss != b.loss) == 121


def test_runs_are_compared_at_the_end_of_what_all_of_them_have() -> None:
    assert compare_runs([settled(120), settled(400)]).tail == (107, 119)
    short, long = settled(120), settled(400)
    found = {each.quantity: each.values for each in compare_runs([short, long]).curves}
    assert found["loss"][0] == found["loss"][1]


def test_runs_without_common_steps_have_nothing_to_compare() -> None:
    run = settled(50)
    later = run.model_copy(
        update={
            "signals": tuple(each.model_copy(update={"step": each.step + 1000}) for each in run.signals),
            "probes": (),
        }
    )
    found = compare_runs([run, later])
    assert (found.tail, found.curves, found.parted) == (None, (), None)
    assert "no training steps in common" in str(found)


def test_noise_is_no_difference_and_a_level_is() -> None:
    def run(level: float, phase: float) -> Run:
        signals = tuple(
            each.model_copy(update={"loss": level + 0.1 * math.sin(7 * each.step + phase)})
            for each in settled(300).signals
        )
        return Run(info=info(), signals=signals)

    assert [each.moved for each in compare_runs([run(1.0, 0.0), run(1.0, 1.0)]).curves if each.quantity == "loss"] == [
        False
    ]
    assert [each.moved for each in compare_runs([run(1.0, 0.0), run(2.0, 1.0)]).curves if each.quantity == "loss"] == [
        True
    ]


def test_a_loss_that_is_finite_in_one_run_alone_has_moved() -> None:
    loss = next(each for each in compare_runs([settled(), diverged()]).curves if each.quantity == "loss")
    assert loss.moved is True and loss.change is None


def test_what_is_lost_has_no_number_at_the_end_however_long_ago_it_had_one() -> None:
    found = compare_runs([lost(at=100), settled()])
    assert found.tail == (179, 199)
    for each in (*found.curves, *found.groups):
        ended = each.quantity not in ("learning_rate", "nonfinite_fraction")
        assert math.isnan(each.values[0].value or 0.0) == ended, each.quantity
        assert not ended or each.moved is True
    text = str(found)
    assert "† A, not finite since step 100: loss, gradient norm, largest update / weight" in text
    assert "† A, not finite since step 100: embed" in text


def test_a_step_that_is_lost_in_between_does_not_hide_the_others() -> None:
    signals = tuple(
        each.model_copy(update={"loss": math.nan}) if each.step in (185, 190) else each for each in settled().signals
    )
    loss = compare_runs([settled(), settled().model_copy(update={"signals": signals})]).curves[0]
    assert loss.quantity == "loss" and loss.moved is False


def test_a_number_that_is_not_taken_any_more_is_none_at_the_end() -> None:
    early = settled().model_copy(update={"probes": settled().probes[:3]})
    found = {each.quantity: each for each in compare_runs([early, settled()]).curves}
    assert not found["leading_exponent"].values[0].measured
    assert found["leading_exponent"].moved is None


def test_the_severity_of_a_finding_stands_with_its_own_step() -> None:
    def told(step: int, severity: Severity) -> Incident:
        return Incident(
            step=step, flag=Flag(code="DS702", name="loss-spike", severity=severity, where="x", message="m")
        )

    run = settled().model_copy(update={"incidents": (told(120, Severity.WARNING), told(124, Severity.ERROR))})
    (flag,) = compare_runs([run, settled()]).flags
    assert (flag.first, flag.steps) == ((120, None), (124, None))
    assert "DS702 loss-spike: warning at step 120, error at step 124 → none" in str(compare_runs([run, settled()]))


def test_a_single_number_cannot_tell() -> None:
    exponent = next(
        each for each in compare_runs([settled(), diverged()]).curves if each.quantity == "leading_exponent"
    )
    assert exponent.moved is None and exponent.change == pytest.approx(0.45)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_line_of_a_comparison_is_wider_than_the_page(width: int) -> None:
    found = compare_runs([settled(), diverged(), settled()])
    assert max(map(len, comparison_text(found, width=width).splitlines())) <= width


def test_one_run_is_no_comparison() -> None:
    with pytest.raises(ConfigError, match="two or more"):
        compare_runs([settled()])
    with pytest.raises(ConfigError, match="one each"):
        compare_runs([settled(), settled()], ["only"])
