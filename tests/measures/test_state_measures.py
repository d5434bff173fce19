"""What is measured on states and activations."""

from __future__ import annotations

from math import inf, nan

import pytest
import torch

from dynstab.core.config import Config
from dynstab.core.estimate import Label
from dynstab.linear.operator import DenseOperator
from dynstab.measures import measure
from dynstab.measures.states import effective_rank, token_similarity
from dynstab.systems.trajectory import Activation, Step, Trajectory


def lone(make_state, value: torch.Tensor, **dims: int | None):
    trajectory = Trajectory(kind="depth", states=(make_state(0, value, **dims),), steps=(), samples=len(value))
    (state,) = measure(trajectory, Config()).states
    return state


def test_root_mean_square_is_a_mean_over_inputs_with_its_spread(make_state):
    state = lone(make_state, torch.tensor([[3.0, 3.0], [1.0, -1.0]]))
    assert state.rms.value == pytest.approx(2.0)
    assert state.rms.spread == pytest.approx(2**0.5)
    assert state.rms.samples == 2 and state.rms.label is Label.EXACT
    assert state.max_abs.value == 3.0


def test_float32_states_of_any_size_have_a_root_mean_square(make_state):
    assert lone(make_state, torch.full((1, 4), 1e30)).rms.value == pytest.approx(1e30, rel=1e-6)
    assert lone(make_state, torch.full((1, 4), 1e-30)).rms.value == pytest.approx(1e-30, rel=1e-6)


def test_smallest_magnitude_is_the_one_percent_quantile_of_nonzero_entries(make_state):
    entries = torch.arange(1, 1001, dtype=torch.float64)
    state = lone(make_state, torch.cat([torch.zeros(500), -entries, entries]).double()[None])
    assert state.smallest_magnitude.value == 10.0
    assert not lone(make_state, torch.zeros(1, 3)).smallest_magnitude.measured


def test_entries_that_are_not_finite_are_counted(make_state):
    state = lone(make_state, torch.tensor([[1.0, nan], [inf, 2.0]]))
    assert state.nonfinite_fraction.value == 0.5
    assert state.rms.outcome == "non-finite in 2 of 2 inputs"
    assert state.smallest_magnitude.value == 1.0


def test_effective_rank_of_orthogonal_tokens_is_full_and_of_equal_tokens_is_least(make_state):
    full = lone(make_state, torch.eye(4).expand(2, -1, -1).contiguous(), token_dim=1, feature_dim=2)
    assert full.effective_rank.value == pytest.approx(1.0)
    assert full.token_similarity.value == pytest.approx(0.0, abs=1e-12)
    equal = lone(make_state, torch.ones(2, 4, 3), token_dim=1, feature_dim=2)
    assert equal.effective_rank.value == pytest.approx(1 / 3)
    assert equal.token_similarity.value == pytest.approx(1.0)


def test_effective_rank_of_two_equal_directions_out_of_four_is_half():
    matrix = torch.diag(torch.tensor([5.0, 5.0, 0.0, 0.0], dtype=torch.float64))[None]
    assert float(effective_rank(matrix)) == pytest.approx(0.5)
    assert float(effective_rank(torch.zeros(1, 3, 2))) == 0.0


def test_token_similarity_is_the_mean_cosine_over_pairs():
    torch.manual_seed(0)
    tokens = torch.randn(2, 5, 3, dtype=torch.float64)
    expected = []
    for rows in tokens:
        cosines = torch.nn.functional.cosine_similarity(rows[:, None], rows[None], dim=2)
        expected.append(float((cosines.sum() - 5) / 20))
    assert token_similarity(tokens).tolist() == pytest.approx(expected)
    assert float(token_similarity(torch.zeros(1, 4, 2))) == 0.0


def test_images_count_their_pixels_as_positions(make_state):
    state = lone(make_state, torch.randn(2, 3, 4, 4), feature_dim=1)
    assert 0 < state.effective_rank.value <= 1


def test_a_vector_has_no_tokens(make_state):
    state = lone(make_state, torch.ones(2, 3), feature_dim=1)
    assert state.effective_rank.outcome == state.token_similarity.outcome == "no positions share features"


def test_norm_growth_and_update_ratio(chain):
    start = torch.ones(2, 3, dtype=torch.float64)
    steps = measure(chain([1.5 * torch.eye(3).double().expand(2, -1, -1)], start, residual=True), Config()).steps
    assert steps[0].norm_growth.value == pytest.approx(1.5)
    assert steps[0].update_ratio.value == pytest.approx(0.5)
    plain = measure(chain([torch.eye(3).double()[None]], start[:1]), Config()).steps[0]
    assert plain.update_ratio.outcome == "not a residual step"


def with_activations(make_state, *activations: Activation):
    identity = torch.eye(3, dtype=torch.float64)[None]
    states = tuple(make_state(i, torch.ones(1, 3, dtype=torch.float64), feature_dim=1) for i in range(2))
    step = Step(
        index=0,
        name="f",
        kind="plain",
        source=0,
        target=1,
        jacobian=DenseOperator(identity),
        function=lambda value: value,
        activations=activations,
    )
    return measure(Trajectory(kind="depth", states=states, steps=(step,)), Config(k=1)).steps[0]


def activation(kind: str, value: torch.Tensor) -> Activation:
    rectifies = kind == "relu"
    kinks = (0.0,) if rectifies else ()
    output = getattr(torch.nn.functional, kind)(value)
    return Activation(name=kind, kind=kind, input=value, output=output, kinks=kinks, rectifier=rectifies)


def test_a_unit_is_dead_only_if_it_is_zero_everywhere(make_state):
    value = torch.tensor([[-1.0, -1.0, 2.0, 0.0], [-2.0, 1.0, 2.0, -3.0]])
    step = with_activations(make_state, activation("relu", value))
    assert step.dead_fraction.value == 0.5
    assert step.kink_fraction.value == 1 / 8


def test_channels_of_images_are_units(make_state):
    value = torch.stack([torch.full((2, 5, 5), -1.0), torch.randn(2, 5, 5).abs()], dim=1)
    assert with_activations(make_state, activation("relu", value)).dead_fraction.value == 0.5


def test_units_of_several_rectifiers_count_together(make_state):
    dead, alive = -torch.ones(2, 3), torch.ones(2, 1)
    step = with_activations(make_state, activation("relu", dead), activation("relu", alive))
    assert step.dead_fraction.value == 0.75


def test_smooth_steps_have_neither_dead_units_nor_kinks(make_state):
    step = with_activations(make_state, activation("gelu", torch.zeros(2, 3)))
    assert not step.dead_fraction.measured and not step.kink_fraction.measured
