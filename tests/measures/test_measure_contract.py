"""What `measure` promises whatever the trajectory holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import isnan

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dynstab.core.config import Config
from dynstab.core.errors import StateError
from dynstab.core.estimate import Estimate, Label
from dynstab.core.measurements import Measurements
from dynstab.measures import MEASURES, measure, planned_products
from dynstab.systems.trajectory import Trajectory


def estimates(measurements: Measurements) -> Iterator[tuple[str, Estimate]]:
    """Every Estimate in the tree, with its path."""
    stack = [("", measurements)]
    while stack:
        path, item = stack.pop()
        if isinstance(item, Estimate):
            yield path, item
        elif isinstance(item, tuple):
            stack += [(f"{path}[{i}]", part) for i, part in enumerate(item)]
        elif hasattr(type(item), "model_fields"):
            stack += [(f"{path}.{name}", getattr(item, name)) for name in type(item).model_fields]


def random_matrices(steps: int, samples: int, size: int, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(steps)
    draws = [torch.randn(samples, size, size, generator=generator, dtype=torch.float64) for _ in range(steps)]
    return [(draw / size**0.5).to(dtype) for draw in draws]


@pytest.mark.parametrize("effort", ["quick", "standard", "thorough"])
def test_every_number_has_a_method_or_a_reason(chain, effort):
    measurements = measure(chain(random_matrices(4, 2, 6), residual=True), Config(effort=effort, k=3))
    assert measurements.partial == ()
    for path, estimate in estimates(measurements):
        assert estimate.outcome != "not measured", path
        assert estimate.method, path
        assert estimate.measured or estimate.outcome != "converged", path


def test_a_report_survives_json(chain):
    measurements = measure(chain(random_matrices(3, 2, 5)), Config(k=2))
    assert Measurements.model_validate_json(measurements.model_dump_json()) == measurements


@pytest.mark.usefixtures("matrix_free")
def test_equal_seeds_give_equal_numbers_and_others_do_not(chain):
    trajectory = chain(random_matrices(3, 2, 40))
    first, again, other = (measure(trajectory, Config(seed=seed)) for seed in (3, 3, 4))
    assert first == again
    assert first.steps[0].rms_gain.value != other.steps[0].rms_gain.value


@pytest.mark.usefixtures("matrix_free")
def test_steps_are_probed_independently(chain):
    matrix = random_matrices(1, 2, 40)[0]
    measurements = measure(chain([matrix, matrix]), Config())
    assert measurements.steps[0].rms_gain.value != measurements.steps[1].rms_gain.value


def test_a_trajectory_without_steps_says_so(make_state):
    trajectory = Trajectory(kind="depth", states=(make_state(0, torch.ones(2, 3)),), steps=(), samples=2)
    measurements = measure(trajectory, Config())
    assert measurements.steps == () and measurements.gradient_flow == ()
    assert measurements.states[0].rms.value == pytest.approx(1.0)
    assert all(e.outcome == "the trajectory has no step" for path, e in estimates(measurements) if "state" not in path)
    assert measure(Trajectory(kind="depth", states=(), steps=()), Config()).states == ()


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_non_finite_step_gives_non_finite_numbers_and_leaves_the_others(chain, request, free, bad):
    if free:
        request.getfixturevalue("matrix_free")
    matrices = random_matrices(4, 3, 8)
    matrices[2] = matrices[2].clone()
    matrices[2][1, 0, 0] = bad
    measurements = measure(chain(matrices, residual=True), Config(k=2))
    assert measurements.partial == ()
    broken, whole = measurements.steps[2], measurements.steps[1]
    assert not torch.tensor(broken.rms_gain.value).isfinite() and "non-finite in 1 of 3" in broken.rms_gain.outcome
    assert isnan(broken.largest_singular_value.value) and "non-finite" in broken.largest_singular_value.outcome
    assert torch.tensor(whole.rms_gain.value).isfinite() and whole.rms_gain.outcome == "converged"
    assert measurements.states[2].nonfinite_fraction.value == 0.0
    assert measurements.states[3].nonfinite_fraction.value > 0.0
    assert not torch.tensor(measurements.gradient_flow[0].gain.value).isfinite()
    assert measurements.gradient_flow[3].gain.outcome == "converged"
    assert "NaN" in measurements.model_dump_json() or "Infinity" in measurements.model_dump_json()


def test_an_interrupt_leaves_what_was_found_and_names_the_rest(chain):
    class Impatient:
        @contextmanager
        def stage(self, name: str, total: int | None = None) -> Iterator[Impatient]:
            self.name, self.count = name, 0
            yield self

        def advance(self, count: int = 1) -> None:
            self.count += count
            if self.name == "singular values" and self.count == 2:
                raise KeyboardInterrupt

    measurements = measure(chain(random_matrices(4, 2, 5)), Config(k=2), progress=Impatient())
    assert measurements.partial == ("singular values", "eigenvalues", "exponents", "network", "structure")
    assert measurements.steps[1].largest_singular_value.measured
    assert measurements.steps[2].largest_singular_value.outcome == "interrupted before it was measured"
    assert measurements.gradient_flow[0].gain.measured
    assert measurements.network.log_gradient_gain.outcome == "interrupted before it was measured"


@pytest.mark.parametrize("free", [False, True])
def test_progress_hears_of_every_measure(chain, request, free):
    heard: dict[str, int] = {}
    announced: dict[str, int | None] = {}

    class Listener:
        @contextmanager
        def stage(self, name: str, total: int | None = None) -> Iterator[Listener]:
            self.name = name
            heard[name], announced[name] = 0, total
            yield self

        def advance(self, count: int = 1) -> None:
            heard[self.name] += count

    if free:
        request.getfixturevalue("matrix_free")
    measure(chain(random_matrices(3, 1, 4)), Config(k=1), progress=Listener())
    # Chapters of other kinds of systems have no share in a network.
    others = {"time", "flow", "network as a flow", "Lyapunov function"}
    assert list(heard) == [one.name for one in MEASURES if one.name not in others]
    assert all(heard.values())
    assert all(total == heard[name] for name, total in announced.items() if total is not None)


def test_spectra_come_from_the_reference_and_gains_from_all_inputs(chain):
    matrices = random_matrices(2, 4, 5)
    reference = chain([matrix[:1] for matrix in matrices])
    step = measure(chain(matrices), Config(k=1), reference=reference).steps[0]
    assert step.rms_gain.samples == 4
    assert step.largest_singular_value.samples == 1
    assert step.largest_singular_value.value == pytest.approx(float(torch.linalg.matrix_norm(matrices[0][0], 2)))


def test_a_reference_with_other_steps_is_refused(chain):
    with pytest.raises(StateError, match="a reference with 1 steps"):
        measure(chain(random_matrices(2, 2, 3)), Config(), reference=chain(random_matrices(1, 1, 3)))


@given(
    sizes=st.lists(st.integers(1, 5), min_size=2, max_size=5),
    samples=st.integers(1, 3),
    scale=st.sampled_from([0.0, 1e-30, 1.0, 1e30]),
    seed=st.integers(0, 10**6),
)
def test_no_label_claims_more_than_is_true(chain, sizes, samples, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    pairs = zip(sizes, sizes[1:], strict=False)
    matrices = [scale * torch.randn(samples, rows, cols, generator=generator).double() for cols, rows in pairs]
    measurements = measure(chain(matrices), Config(k=2, effort="quick"))
    assert measurements.partial == ()
    for path, estimate in estimates(measurements):
        if path.endswith(".lower"):
            assert estimate.label is Label.LOWER or not estimate.measured
        if path.endswith(".upper"):
            assert estimate.label in (Label.UPPER, Label.PROBABILISTIC) or not estimate.measured
    assert all(step.rms_gain.value >= 0 for step in measurements.steps)


def test_planned_products_count_what_was_spent(chain, matrix_free):
    trajectory = chain(random_matrices(3, 8, 64))
    config = Config(k=2)
    planned = planned_products(trajectory, config, spectral_inputs=8)
    steps = measure(trajectory, config).steps
    spent = sum(step.rms_gain.products + step.largest_singular_value.products for step in steps) / len(steps)
    assert 8 * spent * len(steps) <= planned
    assert planned_products(Trajectory(kind="depth", states=(), steps=()), config) == 0
