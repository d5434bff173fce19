from __future__ import annotations

from math import exp, log

import pytest
import torch

from dynstab.core.estimate import Label
from dynstab.estimators.result import Result
from dynstab.estimators.summary import to_estimate, to_estimates, weakest


def result(
    values: list[float], errors: list[float], label: Label = Label.CERTIFIED, outcome: str = "converged"
) -> Result:
    return Result(
        values=torch.tensor(values, dtype=torch.float64)[:, None],
        errors=torch.tensor(errors, dtype=torch.float64)[:, None],
        label=label,
        method="m",
        products=7,
        outcome=outcome,
    )


def test_arithmetic_mean_with_bounds_for_errors() -> None:
    found = to_estimate(result([1.0, 3.0], [0.1, 0.3]), unit="nat")
    assert (found.value, found.samples, found.products, found.unit) == (2.0, 2, 7, "nat")
    assert found.error == pytest.approx(0.2)  # bounds do not average out
    assert found.spread == pytest.approx(2**0.5)


def test_standard_errors_add_in_quadrature() -> None:
    found = to_estimate(result([1.0, 1.0, 1.0, 1.0], [0.2] * 4, Label.ESTIMATE))
    assert found.error == pytest.approx(0.1)


def test_geometric_mean_is_that_of_the_logarithms() -> None:
    found = to_estimate(result([1.0, 4.0], [0.01, 0.04]), mean="geometric")
    assert found.value == pytest.approx(2.0)
    assert found.error == pytest.approx(0.02)
    assert found.spread == pytest.approx(2.0 * log(4) / 2**0.5)


def test_zero_makes_a_geometric_mean_zero_and_nan_makes_any_mean_nan() -> None:
    assert to_estimate(result([0.0, 4.0], [0.0, 0.0]), mean="geometric").value == 0.0
    broken = to_estimate(result([torch.nan, 1.0], [torch.nan, 0.0], outcome="non-finite in 1 of 2 inputs"))
    assert broken.value != broken.value and broken.error is None and "1 of 2" in broken.outcome


def test_minus_infinity_stays_minus_infinity() -> None:
    found = to_estimate(result([-torch.inf, 1.0], [0.0, 0.0]))
    assert found.value == -torch.inf and found.spread is None


def test_one_sample_has_no_spread() -> None:
    assert to_estimate(result([exp(1.0)], [0.0])).spread is None


def test_each_column_becomes_an_estimate() -> None:
    both = Result(
        values=torch.tensor([[2.0, 1.0]]).double(), errors=torch.zeros(1, 2).double(), label=Label.EXACT, method="m"
    )
    assert [e.value for e in to_estimates(both)] == [2.0, 1.0]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ((Label.EXACT, Label.EXACT), Label.EXACT),
        ((Label.EXACT, Label.CERTIFIED), Label.CERTIFIED),
        ((Label.PROBABILISTIC, Label.CERTIFIED), Label.PROBABILISTIC),
        ((Label.ESTIMATE, Label.EXACT), Label.ESTIMATE),
        ((Label.LOWER, Label.EXACT), Label.LOWER),
        ((Label.UPPER, Label.UPPER), Label.UPPER),
        ((Label.LOWER, Label.UPPER), Label.ESTIMATE),
        ((Label.UPPER, Label.CERTIFIED), Label.ESTIMATE),
    ],
)
def test_a_number_is_worth_its_weakest_part(labels: tuple[Label, ...], expected: Label) -> None:
    assert weakest(*labels) is expected
