"""Singular values, eigenvalues and logarithmic norms of single steps."""

from __future__ import annotations

from dataclasses import replace
from math import inf, log

import pytest
import torch

from dynstab.core.config import Config
from dynstab.core.estimate import Label
from dynstab.linear.layout import Layout
from dynstab.linear.operator import DenseOperator
from dynstab.measures import measure
from dynstab.measures.effort import EFFORTS
from dynstab.systems.trajectory import State, Step, Trajectory


def gaussian(samples: int, rows: int, cols: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, rows, cols, generator=generator, dtype=torch.float64) / cols**0.5


def only(measurements):
    (step,) = measurements.steps
    return step


def test_euler_step_of_a_non_normal_field_has_its_logarithmic_norm(chain):
    field = torch.tensor([[-1.0, 2.0], [0.0, -0.5]], dtype=torch.float64)
    step = only(measure(chain([(torch.eye(2) + field)[None]], residual=True), Config()))
    assert step.logarithmic_norm.value == pytest.approx(0.280776, abs=1e-6)
    assert step.spectral_abscissa.value == pytest.approx(-0.5)
    assert step.spectral_radius.value == pytest.approx(0.5)
    assert step.kreiss_constant.value > 1.0 and step.kreiss_constant.label is Label.LOWER
    assert step.transient_growth.value == pytest.approx(float(torch.linalg.matrix_norm(torch.eye(2) + field, 2)))


def test_an_antisymmetric_field_is_neutral_and_grows_under_euler(chain):
    field = torch.tensor([[0.0, 0.6], [-0.6, 0.0]], dtype=torch.float64)
    step = only(measure(chain([(torch.eye(2) + field)[None]], residual=True), Config()))
    assert step.logarithmic_norm.value == pytest.approx(0.0, abs=1e-12)
    assert step.spectral_abscissa.value == pytest.approx(0.0, abs=1e-12)
    assert log(step.spectral_radius.value) == pytest.approx(0.5 * log(1 + 0.36))
    assert log(step.largest_singular_value.value) == pytest.approx(0.5 * log(1 + 0.36))
    assert step.henrici_departure.value == pytest.approx(0.0, abs=1e-6)
    assert step.kreiss_constant.value == inf and "spectral radius" in step.kreiss_constant.outcome


def test_a_plain_step_has_no_vector_field(chain):
    step = only(measure(chain([gaussian(2, 4, 4)]), Config()))
    assert step.spectral_radius.measured
    assert not step.logarithmic_norm.measured and not step.spectral_abscissa.measured
    assert "not a residual step" in step.logarithmic_norm.outcome


def test_a_step_that_changes_the_size_has_singular_values_alone(chain):
    step = only(measure(chain([gaussian(2, 3, 5)]), Config()))
    assert step.nullity.value == 2.0
    assert len(step.singular_values) == 3
    for estimate in (step.spectral_radius, step.log_determinant, step.henrici_departure):
        assert "changes the size" in estimate.outcome


def test_nullity_counts_dead_directions_and_the_smallest_value_is_the_next(chain):
    left, right = torch.linalg.qr(gaussian(1, 6, 6, 1)).Q, torch.linalg.qr(gaussian(1, 6, 6, 2)).Q
    values = torch.tensor([3.0, 2.0, 1.0, 0.25, 0.0, 0.0], dtype=torch.float64)
    step = only(measure(chain([left @ torch.diag(values) @ right]), Config(k=4)))
    assert step.nullity.value == 2.0
    assert step.smallest_singular_value.value == pytest.approx(0.25)
    assert [value.value for value in step.singular_values] == pytest.approx([3.0, 2.0, 1.0, 0.25])
    assert step.log_determinant.value == -inf and step.log_determinant.outcome == "converged"


def test_attention_over_equal_tokens_loses_all_but_one_copy_of_the_features():
    torch.manual_seed(0)
    tokens, size = 5, 4
    query, key, value, out = (torch.randn(size, size, dtype=torch.float64) / size**0.5 for _ in range(4))

    def attend(x: torch.Tensor) -> torch.Tensor:
        weights = torch.softmax((x @ query.T) @ (x @ key.T).T / size**0.5, dim=-1)
        return weights @ (x @ value.T) @ out.T

    x = torch.randn(size, dtype=torch.float64).expand(tokens, -1).contiguous()
    jacobian = torch.func.jacrev(attend)(x).reshape(tokens * size, tokens * size)
    layout = Layout(shapes=(torch.Size((1, tokens, size)),))
    states = tuple(
        State(index=i, name=f"x{i}", value=(v[None],), layout=layout, token_dim=1, feature_dim=2)
        for i, v in enumerate((x, attend(x)))
    )
    step = Step(
        index=0,
        name="attention",
        kind="plain",
        source=0,
        target=1,
        jacobian=DenseOperator(jacobian[None]),
        function=lambda tensors: (attend(tensors[0][0])[None],),
    )
    measurements = measure(Trajectory(kind="depth", states=states, steps=(step,)), Config(k=4))
    found = only(measurements)
    assert found.nullity.value == (tokens - 1) * size
    expected = torch.linalg.svdvals(out @ value)
    assert [value.value for value in found.singular_values] == pytest.approx(expected.tolist(), rel=1e-10)
    assert measurements.states[1].token_similarity.value == pytest.approx(1.0)
    assert measurements.states[1].effective_rank.value == pytest.approx(1 / size)


def test_log_determinant_is_the_mean_over_inputs(chain):
    matrices = gaussian(3, 7, 7)
    step = only(measure(chain([matrices]), Config()))
    assert step.log_determinant.value == pytest.approx(float(torch.linalg.slogdet(matrices).logabsdet.mean()))


def test_matrix_free_values_agree_with_the_dense_ones_within_their_errors(chain, monkeypatch):
    matrix = torch.eye(60).double() + 0.5 * gaussian(2, 60, 60, 3)
    trajectory = chain([matrix], residual=True)
    dense = only(measure(trajectory, Config(k=4)))
    monkeypatch.setitem(EFFORTS, "standard", replace(EFFORTS["standard"], dense_size=0))
    free = only(measure(trajectory, Config(k=4)))
    for name in ("largest_singular_value", "logarithmic_norm", "spectral_radius", "spectral_abscissa"):
        exact, found = getattr(dense, name), getattr(free, name)
        assert exact.label is Label.EXACT and found.label in (Label.CERTIFIED, Label.ESTIMATE)
        assert abs(found.value - exact.value) <= found.error + 1e-12, name
        assert found.products > 0 and found.samples == 2
    assert all(a.value <= b.value + 1e-12 for a, b in zip(free.singular_values, dense.singular_values, strict=True))
    assert not free.nullity.measured and "too large" in free.nullity.outcome


@pytest.mark.usefixtures("matrix_free")
def test_quick_effort_says_what_it_skips(chain):
    step = only(measure(chain([gaussian(1, 30, 30)], residual=True), Config(effort="quick")))
    assert step.largest_singular_value.measured
    for estimate in (step.logarithmic_norm, step.spectral_radius, step.spectral_abscissa):
        assert estimate.outcome == "needs effort standard"


@pytest.mark.usefixtures("matrix_free")
def test_no_basis_is_made_that_does_not_fit_into_memory(chain, monkeypatch):
    monkeypatch.setitem(EFFORTS, "standard", replace(EFFORTS["standard"], vectors_bytes=4096))
    measurements = measure(chain([gaussian(1, 30, 30)]), Config())
    assert "does not fit into memory" in only(measurements).largest_singular_value.outcome
    assert "does not fit into memory" in measurements.network.smallest_singular_value.outcome
    assert not measurements.gradient_flow[0].product_upper.measured


def test_only_as_many_inputs_are_decomposed_as_the_effort_affords(chain, monkeypatch):
    monkeypatch.setitem(EFFORTS, "standard", replace(EFFORTS["standard"], dense_work=2 * 10.0**3))
    measurements = measure(chain([gaussian(5, 10, 10)]), Config())
    step = only(measurements)
    assert step.largest_singular_value.samples == 2 and step.largest_singular_value.label is Label.EXACT
    assert step.rms_gain.samples == 5 and step.rms_gain.label is Label.EXACT
    flow = measurements.gradient_flow[0]
    # Two inputs cannot bound five.
    assert flow.upper.label is Label.PROBABILISTIC and flow.product_upper.label is Label.ESTIMATE
