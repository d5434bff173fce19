"""Charts from characters."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from dynstab.render.bars import LEVELS, chart, diverging, fit, spark

_VALUES = st.lists(st.none() | st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=300)


def test_a_spark_rises_with_its_values_and_is_clipped_to_its_range() -> None:
    assert spark([0.0, 0.5, 1.0, 9.0, -9.0], 0.0, 1.0) == "▁▅██▁"
    assert spark([float(i) for i in range(8)], 0.0, 7.0) == LEVELS


def test_what_is_not_a_number_has_its_own_sign() -> None:
    assert spark([math.nan, math.inf, -math.inf, None], 0.0, 1.0) == "×↑↓ "


def test_values_are_repeated_or_binned_to_the_extreme_of_each_bin() -> None:
    assert fit([1.0, 2.0], 5, 2) == [1.0, 1.0, 2.0, 2.0]
    assert 50.0 in fit([1.0] * 60 + [50.0] + [1.0] * 60, 10)
    assert any(math.isnan(value) for value in fit([1.0] * 60 + [math.nan], 10) if value is not None)


def test_columns_stand_on_zero_and_hang_from_it() -> None:
    rows = chart([4.0, 2.0, -4.0], rows=4, least=1.0)
    assert [marks for _, marks in rows] == ["█  ", "██ ", "  █", "  █"]
    assert [edge for edge, _ in rows] == [4.0, 2.0, -2.0, -4.0]


def test_a_flat_profile_looks_flat() -> None:
    rows = chart([0.1, 0.2, 0.1], rows=3, least=3.0)
    assert rows[0] == (3.0, "   ")
    assert set(rows[-1][1]) <= set("▁▂")


def test_a_diverging_bar_points_to_the_side_of_its_sign() -> None:
    assert diverging(1.0, 1.0, 3) == "   │███"
    assert diverging(-1.0, 1.0, 3) == "███│   "
    assert diverging(-0.5, 1.0, 3) == " ▐█│   "
    assert diverging(0.0, 1.0, 3) == "   │   "


@given(values=_VALUES, width=st.integers(1, 90))
def test_charts_of_anything_have_the_width_asked_for(values: list[float | None], width: int) -> None:
    fitted = fit(values, width, max(1, width // max(1, len(values))))
    assert len(fitted) <= width
    assert bool(fitted) == bool(values)
    assert len(spark(fitted, -1.0, 1.0)) == len(fitted)
    assert all(len(marks) == len(fitted) for _, marks in chart(fitted, rows=5, least=3.0))
    assert all(len(diverging(value, 2.0, 5)) == 11 for value in values)
