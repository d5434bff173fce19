"""Numbers for people."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynstab.core.estimate import Estimate, Label
from dynstab.render.footnotes import ranges
from dynstab.render.numbers import (
    MARKS,
    MEANINGS,
    brief,
    count,
    duration,
    estimate,
    evidence,
    number,
    size,
    span,
    uncertain,
)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1.0349, "1.03"), (0.0, "0"), (-0.0, "0"), (1536.2, "1536"), (-0.01234, "-0.0123"), (12.345, "12.3"),
        (1.2e-5, "1.20e-5"), (123456.0, "1.23e5"), (0.00123, "0.00123"), (1e300, "1.00e300"), (5e-324, "4.94e-324"),
        (math.nan, "NaN"), (math.inf, "inf"), (-math.inf, "-inf"), (None, "–"),
    ],
)  # fmt: skip
def test_three_digits_and_e_notation_only_where_needed(value: float | None, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (1.0349, 0.02, "1.03 ± 0.02"), (1.0349, 0.2, "1.0 ± 0.2"), (0.02, 0.3, "0.0 ± 0.3"), 
        (1540.0, 30.0, "1540 ± 30"),
        (1.03, 4e-8, "1.03 ± 4e-8"), (1.234e-12, 3e-14, "(1.23 ± 0.03)e-12"), (-0.004, 0.02, "0.00 ± 0.02"),
        (1.03, 0.0, "1.03"), (1.03, None, "1.03"), (1.03, math.inf, "1.03 ± inf"), (math.nan, 0.1, "NaN"),
        (0.019, 0.00096, "0.019 ± 0.001"), (0.0, 1e-9, "(0 ± 1)e-9"),
        (9.96e-9, 1e-9, "(1.0 ± 0.1)e-8"), (99951.0, 1000.0, "(1.00 ± 0.01)e5"),
    ],
)  # fmt: skip
def test_no_digit_beyond_the_error(value: float, error: float | None, shown: str) -> None:
    assert uncertain(value, error) == shown


def test_a_number_that_is_rounded_up_to_the_next_power_of_ten_has_one_digit_before_the_point() -> None:
    assert [number(9.96e-9, 1e-9), number(9.96e5, 1e5), number(99951.0)] == ["1.0e-8", "1.0e6", "1.00e5"]
    assert number(0.0, 1e-7) == number(3e-9, 5e-8) == "0"


def test_a_small_error_only_limits_the_digits_in_a_table() -> None:
    assert uncertain(1.0349, 0.011, always=False) == "1.03"
    assert uncertain(0.98765, 0.01, always=False) == "0.99"
    assert uncertain(1.0349, 0.02, always=False) == "1.03 ± 0.02"


def test_each_label_has_its_own_mark_and_meaning() -> None:
    assert set(MARKS) == set(MEANINGS) == set(Label)
    assert len(set(MARKS.values())) == len(Label)


def test_an_estimate_shows_label_error_and_outcome() -> None:
    assert estimate(Estimate(value=2.0, error=0.1, label=Label.UPPER)) == "≤2.0 ± 0.1"
    assert estimate(Estimate(value=2.0, error=0.1), usual=Label.ESTIMATE) == "2.0 ± 0.1"
    assert estimate(Estimate(value=2.5, outcome="reached its budget")) == "≈2.50†"
    assert estimate(Estimate(value=1536.0, label=Label.EXACT)) == "=1536"
    assert estimate(Estimate.unmeasured("too large")) == "–"


def test_counts_durations_ranges_and_spans() -> None:
    assert [count(1234), count(124_439_808), count(2 * 10**9)] == ["1,234", "124 M", "2.00 G"]
    assert [size(0), size(512), size(3 * 2**19), size(2**45)] == ["0 B", "512 B", "1.5 MiB", "32 TiB"]
    assert [duration(0.04), duration(41.72), duration(125), duration(3725)] == [
        "0.04 s",
        "41.7 s",
        "2 min 05 s",
        "1 h 02 min",
    ]
    assert ranges([9, 3, 4, 5, 5]) == "3-5, 9"
    assert [span([1.25, 0.5]), span([20.0, 44.0]), span([1.2, 1.2001]), span([1.0, math.nan])] == [
        "0.500 to 1.25",
        "20 to 44",
        "1.20",
        "with NaN",
    ]
    assert [brief(2.4e-7), brief(0.31), brief(0.0), brief(math.nan)] == ["2e-7", "0.3", "0", "NaN"]
    assert [brief(9.7e-7), brief(0.97)] == ["1e-6", "1"]


_ANY = st.floats(allow_nan=True, allow_infinity=True)


def test_evidence_is_shown_as_json_names_it() -> None:
    assert [evidence(math.inf), evidence("Infinity"), evidence(True), evidence(None)] == ["Infinity"] * 2 + ["yes", "–"]
    assert evidence([1, 2.5]) == "1, 2.5"


@given(value=_ANY, error=st.none() | _ANY)
def test_any_number_is_shown_short_and_never_raises(value: float, error: float | None) -> None:
    for text in (number(value, error), uncertain(value, error), estimate(Estimate(value=value, error=error))):
        assert 1 <= len(text) <= 30


@given(value=st.floats(min_value=1e-200, max_value=1e200), sign=st.sampled_from([1, -1]))
def test_three_digits_are_right_to_half_a_percent(value: float, sign: int) -> None:
    assert float(number(sign * value)) == pytest.approx(sign * value, rel=5.001e-3)


@given(value=st.floats(-1e6, 1e6), error=st.floats(1e-6, 1e6))
def test_the_interval_shown_holds_the_value(value: float, error: float) -> None:
    text = uncertain(value, error)
    scale = 10.0 ** int(match[1]) if (match := re.search(r"\)e(-?\d+)$", text)) else 1.0
    parts = re.sub(r"\)e-?\d+$|\(", "", text).split(" ± ")
    shown, doubt = (float(part) * scale for part in parts)
    assert doubt == pytest.approx(error, rel=0.51)
    assert abs(shown - value) <= max(0.5001 * 10 ** math.floor(math.log10(doubt) + 1e-9), 5.001e-3 * abs(value))
