"""Sliding windows, what is usual in them, and jumps."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dynstab.diagnostics.over_time.jumps import WARM_UP, find_jump
from dynstab.diagnostics.over_time.series import REFRESH, Series, safe_log


def test_the_window_holds_the_newest_rows_in_order() -> None:
    series = Series(window=5)
    for i in range(23):
        series.add([float(i), -float(i)])
        assert series.rows[:, 0].tolist() == [float(j) for j in range(max(0, i - 4), i + 1)]
        assert series.last.tolist() == [float(i), -float(i)]
    assert series.count == 23


def test_what_is_usual_is_the_median_and_its_deviation() -> None:
    rows = np.random.default_rng(0).normal(size=(2000, 2)) * [1.0, 3.0] + [5.0, -1.0]
    series = Series(window=2000)
    for row in rows:
        series.add(row)
    center, scatter = series.usual()
    assert center == pytest.approx([5.0, -1.0], abs=0.2)
    assert scatter == pytest.approx([1.0, 3.0], rel=0.1)


def test_what_is_usual_is_renewed_every_few_records() -> None:
    series = Series(window=REFRESH)
    for value in (0.0, 1.0):
        for _ in range(REFRESH):
            series.add([value])
            series.usual()
    for _ in range(REFRESH):
        series.add([1.0])
    assert series.usual()[0].tolist() == [1.0]


def test_numbers_that_were_not_taken_do_not_count() -> None:
    series = Series(window=50)
    for i in range(40):
        series.add([1.0 if i % 4 == 0 else math.nan, math.nan])
    center, _ = series.usual()
    assert center[0] == 1.0
    assert math.isnan(center[1])
    assert find_jump(series, factor=2.0, deviations=3.0) is None


def _quiet(count: int) -> Series:
    series, noise = Series(window=100), np.random.default_rng(0)
    for _ in range(count):
        series.add(0.1 * noise.normal(size=3))
    return series


def test_a_jump_needs_its_factor_its_deviations_and_a_warm_up() -> None:
    series = _quiet(80)
    series.add([0.0, math.log(9.0), math.log(11.0)])
    jump = find_jump(series, factor=10.0, deviations=6.0)
    assert jump is not None
    assert (jump.index, jump.columns, jump.others) == (2, (2,), "")
    assert jump.factor == pytest.approx(11.0, rel=0.1)
    assert find_jump(series, factor=10.0, deviations=60.0) is None
    early = _quiet(WARM_UP - 2)
    early.add([9.0, 9.0, 9.0])
    assert find_jump(early, factor=2.0, deviations=3.0) is None


def test_a_value_that_is_not_finite_is_no_jump() -> None:
    series = _quiet(80)
    for value in (math.inf, math.nan, -math.inf):
        series.add([value, 0.0, 0.0])
        assert find_jump(series, factor=2.0, deviations=3.0) is None


def test_logarithms_of_zero_and_of_nan_are_quiet() -> None:
    assert safe_log([1.0, 0.0]).tolist() == [0.0, -math.inf]
    assert np.isnan(safe_log([math.nan, -1.0])).all()
