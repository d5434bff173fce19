"""Footnotes: each reason once, with the places that it concerns."""

from __future__ import annotations

from dynstab.core.estimate import Estimate
from dynstab.render.footnotes import MOST_RUNS, Footnotes


def _series(missing: set[int], count: int = 100) -> list[tuple[int, Estimate]]:
    return [(i, Estimate.unmeasured("too dear") if i in missing else Estimate(value=1.0)) for i in range(count)]


def test_a_reason_names_the_steps_that_it_concerns() -> None:
    notes = Footnotes()
    notes.add_series("ρ", _series({3, 4, 5, 9}), "step")
    assert notes.lines() == ["– not measured: too dear (ρ of steps 3-5, 9)"]


def test_of_many_runs_of_steps_their_number_is_told() -> None:
    notes = Footnotes()
    notes.add_series("ρ", _series(set(range(0, 4 * MOST_RUNS, 2))), "step")
    assert notes.lines() == [f"– not measured: too dear (ρ of {2 * MOST_RUNS} of 100 steps)"]


def test_a_reason_that_concerns_all_names_none() -> None:
    notes = Footnotes()
    notes.add_series("ρ", _series(set(range(100))), "step")
    assert notes.lines() == ["– not measured: too dear (ρ)"]
