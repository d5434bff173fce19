"""Rules and verdict accept whatever numbers a report can hold."""

from __future__ import annotations

import math
import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynstab.core.estimate import Estimate, Label
from dynstab.core.flag import Flag, Verdict
from dynstab.core.measurements import (
    GradientFlow,
    GrowthFit,
    Lyapunov,
    Measurements,
    NetworkMeasurement,
    StateMeasurement,
    StepMeasurement,
)
from dynstab.core.report import Check, StepInfo
from dynstab.diagnostics import Facts, diagnose, verdict
from dynstab.diagnostics.case import Case
from dynstab.diagnostics.words import magnitude, number, spans

SPECIAL = st.sampled_from([None, 0.0, -0.0, math.nan, math.inf, -math.inf, 1.0, -1.0, 1e308, -1e308, 5e-324, 7.5, -7.5])
VALUES = SPECIAL | st.floats(allow_nan=True, allow_infinity=True)
ESTIMATES = st.builds(
    Estimate,
    value=VALUES,
    error=VALUES,
    label=st.sampled_from(Label),
    spread=VALUES,
    samples=st.integers(0, 20),
    products=st.integers(0, 100),
)
FLOATS = st.floats(allow_nan=True, allow_infinity=True)
INDICES = st.integers(0, 5) | st.integers(-(10**9), 10**9)


def record(noun, **fixed):
    """Random records of a noun: every Estimate any number at all."""
    names = [name for name, field in noun.model_fields.items() if field.annotation is Estimate]
    return st.builds(noun, **{name: ESTIMATES for name in names}, **fixed)


STEPS = record(
    StepMeasurement,
    index=INDICES,
    name=st.text(max_size=5),
    eigenvalues=st.lists(st.tuples(FLOATS, FLOATS), max_size=3).map(tuple),
)
NETWORKS = record(
    NetworkMeasurement,
    growth=st.none()
    | st.builds(
        GrowthFit,
        law=st.sampled_from(["exponential", "square-root", "logarithmic", "none"]),
        rate=FLOATS,
        errors=st.just({}),
    ),
    causal=st.none() | st.booleans(),
    batch_coupled=st.none() | st.booleans(),
)
MEASUREMENTS = st.builds(
    Measurements,
    steps=st.lists(STEPS, max_size=4).map(tuple),
    states=st.lists(record(StateMeasurement, index=INDICES, name=st.text(max_size=5)), max_size=4).map(tuple),
    gradient_flow=st.lists(record(GradientFlow, state=INDICES), max_size=4).map(tuple),
    network=NETWORKS,
    lyapunov=st.builds(Lyapunov, finite_time=st.lists(ESTIMATES, max_size=2).map(tuple)),
    partial=st.lists(st.text(max_size=5), max_size=2).map(tuple),
)


@st.composite
def facts(draw) -> Facts:
    base = Case(depth=draw(st.integers(0, 4)), kind=draw(st.sampled_from(["residual", "plain", "transition"]))).facts()
    extra = draw(st.lists(st.builds(StepInfo, index=INDICES, source=INDICES, target=INDICES), max_size=2))
    return Facts(
        system=base.system.model_copy(update={"steps": (*base.system.steps, *extra)}),
        measurements=draw(MEASUREMENTS),
        model=base.model,
        dtype=draw(st.sampled_from(["float32", "bfloat16", "int8", ""])),
        training_dtype=draw(st.sampled_from([None, "float16", "torch.bfloat16", "float64", "float8", "int8"])),
        verification=draw(
            st.lists(st.builds(Check, check=st.text(max_size=5), passed=st.booleans(), error=VALUES), max_size=2)
        ),
    )


@given(facts())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_any_numbers_give_flags_and_a_verdict(facts):
    flags = diagnose(facts)
    found = verdict(facts, flags)
    for flag in flags:
        again = Flag.model_validate_json(flag.model_dump_json())
        assert (again.code, again.steps, again.message) == (flag.code, flag.steps, flag.message)
    assert found.kind in {"stable", "exploding", "vanishing", "mixed", "inconclusive"}
    assert found.confidence in {"high", "medium", "low"}
    assert found.summary and not re.search(r"\bnan\b|\binf\b|None", found.summary.replace("NaN", ""))
    assert found.margin is None or not math.isnan(found.margin)
    Verdict.model_validate_json(found.model_dump_json())


@given(FLOATS)
def test_any_number_can_be_written(value):
    assert number(value)
    if not math.isnan(value):
        assert magnitude(value)
    if 1e-300 < abs(value) < 1e300:
        assert math.isclose(float(number(value)), value, rel_tol=6e-3)


def test_numbers_are_short():
    written = {34.651: "34.7", 65504.0: "65504", 6.103515625e-05: "6.1e-5", 0.1: "0.1", 1234567.0: "1.23e6", 0.0: "0"}
    assert {value: number(value) for value in written} == written
    assert [magnitude(log) for log in (0.0, 4.8, 9.2, -4.8, 1000.0)] == ["1", "120", "9.9e3", "0.0082", "1e434"]


def test_spans_are_short():
    assert spans([3]) == "step 3"
    assert spans([5, 3, 4, 9]) == "steps 3-5, 9"
    assert spans(range(0, 20, 2)) == "steps 0, 2, 4, 6 and 6 more ranges"
    assert spans(range(0, 10, 2)) == "steps 0, 2, 4, 6 and 1 more range"
    assert spans([]) == "network"
