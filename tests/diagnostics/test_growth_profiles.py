"""Where growth arises and which law it follows."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynstab.diagnostics.case import Case
from dynstab.diagnostics.euler import stable_step
from dynstab.diagnostics.profiles import cumulative, gradient_profile, growth_law, signal_profile, worst_stretch
from dynstab.diagnostics.thresholds import HEALTHY

PROFILES = st.lists(st.floats(-5, 5), min_size=1, max_size=12)


@given(PROFILES)
def test_worst_stretch_is_the_best_of_all_stretches(values):
    profile = dict(enumerate(values))
    allowance = HEALTHY / len(values)

    def excess(first: int, last: int) -> float:
        return sum(values[first : last + 1]) - allowance * (last + 1 - first)

    best = max(excess(a, b) for a in range(len(values)) for b in range(a, len(values)))
    found = worst_stretch(profile, sign=1)
    if found is None:
        assert best <= 1e-9
    else:
        assert excess(found.steps[0], found.steps[-1]) == pytest.approx(best, abs=1e-9)
        assert found.total == pytest.approx(sum(values[found.steps[0] : found.steps[-1] + 1]))


def test_uniform_growth_is_worst_everywhere_and_one_burst_is_alone():
    assert worst_stretch(dict.fromkeys(range(10), 0.5), sign=1).steps == tuple(range(10))
    burst = dict.fromkeys(range(10), 0.0) | {4: 5.0}
    assert worst_stretch(burst, sign=1).steps == (4,)
    assert worst_stretch(burst, sign=-1) is None


def test_an_infinite_step_is_the_worst_whatever_surrounds_it():
    found = worst_stretch({0: 1.0, 1: math.inf, 2: -math.inf, 3: 1.0}, sign=1)
    assert 1 in found.steps
    assert found.total == math.inf


def test_stretches_do_not_bridge_unmeasured_steps():
    assert worst_stretch({0: 4.0, 5: 4.5}, sign=1).steps == (5,)


@given(st.floats(-1, 1), st.floats(-1, 1), st.integers(1, 20))
def test_profiles_add_up_to_the_whole(gradient, signal, depth):
    facts = Case(depth=depth, gradient_rate=gradient, signal_rate=signal).facts()
    assert cumulative(gradient_profile(facts))[-1] == pytest.approx(gradient * depth, abs=1e-9)
    assert cumulative(signal_profile(facts))[-1] == pytest.approx(signal * depth, abs=1e-9)


def test_stem_and_head_are_left_out_of_the_signal():
    facts = Case(depth=4, signal_rate=0.5).facts()
    steps = tuple(
        step.model_copy(update={"kind": "transition"}) if step.index in (0, 3) else step for step in facts.system.steps
    )
    object.__setattr__(facts, "system", facts.system.model_copy(update={"steps": steps}))
    assert sorted(signal_profile(facts)) == [1, 2]
    facts = Case(depth=4, signal_rate=0.5, kind="transition").facts()
    assert sorted(signal_profile(facts)) == [1, 2]


@pytest.mark.parametrize(
    ("law", "height"),
    [
        ("exponential", lambda level: 0.3 * level),
        ("square-root", math.sqrt),
        ("logarithmic", lambda level: 2 * math.log1p(level)),
        ("exponential", lambda level: 1 - 0.2 * level),
    ],
)
@pytest.mark.parametrize("depth", [4, 12, 100])
def test_growth_laws_are_recognised(law, height, depth):
    assert growth_law([height(level) for level in range(depth)]) == law


def test_growth_law_needs_four_finite_points():
    assert growth_law([0.0, 1.0, 2.0]) == "none"
    assert growth_law([0.0, 1.0, 2.0, math.inf]) == "none"


@given(st.lists(st.tuples(st.floats(-3, 1), st.floats(-3, 3)), min_size=1, max_size=5))
def test_stable_step_puts_the_worst_eigenvalue_on_the_circle(eigenvalues):
    fields = [complex(real - 1, imaginary) for real, imaginary in eigenvalues]
    fields = [field for field in fields if abs(field) > 1e-3]
    step = stable_step((field.real + 1, field.imag) for field in fields)
    if not fields:
        assert step is None
        return
    sizes = [abs(1 + step * field) for field in fields]
    assert max(sizes) == pytest.approx(1, abs=1e-9)
    wider = [abs(1 + 1.1 * step * field) for field in fields]
    assert step == 0 or max(wider) > 1


def test_profile_falls_back_on_the_steps_without_a_flow():
    facts = Case(no_flow=True, every_step={"relative_gain": math.exp(0.4)}).facts()
    profile = gradient_profile(facts)
    assert list(profile.values()) == pytest.approx([0.2] * 12)
    assert all(b == a + 1 for a, b in pairwise(profile))
