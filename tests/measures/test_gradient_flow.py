"""The gradient at every state and its bounds."""

from __future__ import annotations

from math import exp, log

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dynstab.core.config import Config
from dynstab.core.estimate import Label
from dynstab.linear.operator import DenseOperator
from dynstab.measures import measure
from dynstab.measures.flow_profile import dense_profile, swept_profile


def gaussian(samples: int, rows: int, cols: int, seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(samples, rows, cols, generator=generator, dtype=torch.float64) / cols**0.5).to(dtype)


@given(
    sizes=st.lists(st.integers(1, 6), min_size=2, max_size=6),
    samples=st.integers(1, 3),
    rank=st.integers(1, 6),
    scale=st.sampled_from([1e-20, 0.3, 1.0, 1e20]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 10**6),
    given_cotangent=st.booleans(),
)
def test_lower_bound_gain_and_upper_bound_are_in_order(
    chain, sizes, samples, rank, scale, dtype, seed, given_cotangent
):
    pairs = enumerate(zip(sizes, sizes[1:], strict=False))
    matrices = []
    for i, (cols, rows) in pairs:
        left, right = gaussian(samples, rows, rank, seed + i), gaussian(samples, rank, cols, seed - i)
        matrices.append((scale * left @ right).to(dtype))
    cotangent = (gaussian(samples, sizes[-1], 1, seed)[:, :, 0].to(dtype),) if given_cotangent else None
    trajectory = chain(matrices)
    for flow in measure(trajectory, Config(effort="quick"), cotangent=cotangent).gradient_flow:
        assert flow.lower.value <= flow.gain.value <= flow.upper.value
        if flow.product_upper.label is Label.UPPER:
            assert flow.upper.value <= flow.product_upper.value * (1 + 1e-5)


def test_dense_bounds_are_the_extreme_singular_values_of_the_propagator(chain):
    matrices = [gaussian(3, rows, cols, seed) for seed, (rows, cols) in enumerate([(7, 5), (6, 7), (4, 6)])]
    flow = measure(chain(matrices), Config()).gradient_flow
    product = torch.eye(4, dtype=torch.float64)
    for index in (2, 1, 0):
        product = product @ matrices[index]
        values = torch.linalg.svdvals(product)
        least = values.amin() if product.shape[2] >= 4 else 0.0
        assert flow[index].upper.value == pytest.approx(float(values.amax()), rel=1e-10)
        assert flow[index].lower.value == pytest.approx(float(least), rel=1e-8)
        gains = product.square().sum(dim=(1, 2)).sqrt() / 2
        assert flow[index].gain.value == pytest.approx(float(gains.log().mean().exp()), rel=1e-10)
    assert flow[3].gain.value == flow[3].lower.value == flow[3].upper.value == 1.0


def test_a_step_to_fewer_dimensions_and_back_has_lower_bound_zero(chain):
    matrices = [gaussian(2, 3, 6, 1), gaussian(2, 6, 3, 2)]
    assert measure(chain(matrices), Config()).gradient_flow[0].lower.value == 0.0


@pytest.mark.parametrize("free", [False, True])
def test_orthogonal_chain_neither_grows_nor_shrinks_in_two_hundred_steps(chain, request, free):
    if free:
        request.getfixturevalue("matrix_free")
    matrices = [torch.linalg.qr(gaussian(2, 16, 16, seed)).Q.float() for seed in range(200)]
    measurements = measure(chain(matrices), Config(effort="quick"))
    first = measurements.gradient_flow[0]
    assert first.gain.value == pytest.approx(1.0, abs=2e-5)
    assert measurements.network.log_gradient_gain.value == pytest.approx(0.0, abs=3e-5)


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_float32_chains_neither_overflow_nor_underflow(chain, request, free, factor):
    if free:
        request.getfixturevalue("matrix_free")
    matrices = [factor * torch.linalg.qr(gaussian(2, 6, 6, seed)).Q.float() for seed in range(60)]
    network = measure(chain(matrices, torch.ones(2, 6)), Config(effort="quick")).network
    assert network.raw_log_gradient_gain.value == pytest.approx(60 * log(factor), rel=1e-6)


@pytest.mark.parametrize("free", [False, True])
def test_residual_gaussian_chain_has_mean_square_gain_of_one_plus_a_squared_to_the_depth(chain, request, free):
    if free:
        request.getfixturevalue("matrix_free")
    a, depth, samples, size = 0.3, 12, 24, 32
    matrices = [torch.eye(size).double() + a * gaussian(samples, size, size, seed) for seed in range(depth)]
    gain = measure(chain(matrices, residual=True), Config()).gradient_flow[0].gain
    # Per input ||J||_F^2/N scatters little at this width; so does ln of it.
    assert 2 * log(gain.value) == pytest.approx(depth * log(1 + a * a), abs=0.1)


def test_a_gradient_of_a_given_loss_equals_that_of_autograd(chain):
    torch.manual_seed(0)
    weights = [gaussian(1, 8, 8, seed)[0] for seed in range(3)]
    x = torch.randn(4, 8, dtype=torch.float64, requires_grad=True)
    states = [x]
    for weight in weights:
        states.append(states[-1] @ weight.T)
    cotangent = torch.randn(4, 8, dtype=torch.float64)
    gradients = torch.autograd.grad(states[-1], states, cotangent)
    trajectory = chain([weight.expand(4, -1, -1) for weight in weights], x.detach())
    flow = measure(trajectory, Config(), cotangent=(cotangent,)).gradient_flow
    for index, gradient in enumerate(gradients):
        each = gradient.norm(dim=1) / cotangent.norm(dim=1)
        assert flow[index].gain.value == pytest.approx(float(each.log().mean().exp()), rel=1e-12)


def test_sweep_with_a_given_cotangent_equals_the_dense_chain():
    matrices = [gaussian(3, rows, cols, seed) for seed, (rows, cols) in enumerate([(9, 6), (5, 9)])]
    cotangent = gaussian(3, 5, 1, 7)[:, :, 0]
    dense = dense_profile(matrices, torch.float64, cotangent)
    swept = swept_profile([DenseOperator(m) for m in matrices], 4, seed=1, chunk_bytes=2**20, cotangent=cotangent)
    torch.testing.assert_close(swept.log_gain, dense.log_gain, rtol=0, atol=1e-12)
    assert swept.log_upper is not None and dense.log_upper is not None
    assert bool((swept.log_upper >= dense.log_upper).all())


def test_sweep_finds_the_dense_gain_within_its_stated_errors():
    matrices = [gaussian(40, 24, 24, seed) for seed in range(6)]
    dense = dense_profile(matrices, torch.float64)
    operators = [DenseOperator(m) for m in matrices]
    deviations = []
    for seed in range(10):
        swept = swept_profile(operators, 16, seed=seed, chunk_bytes=2**20)
        deviations.append(((swept.log_gain - dense.log_gain) / swept.log_error)[:, :-1])
    scaled = torch.stack(deviations)
    assert 0.6 < float((scaled.abs() < 1).double().mean()) < 0.76
    assert float((scaled.abs() < 3).double().mean()) > 0.98


def test_randomised_upper_bound_holds_far_more_often_than_it_claims():
    matrices = [gaussian(60, 5, 5, 1), gaussian(60, 5, 5, 2)]
    exact = dense_profile(matrices, torch.float64).log_upper
    failures = 0
    for seed in range(30):
        bound = swept_profile([DenseOperator(m) for m in matrices], 2, seed=seed, chunk_bytes=2**20).log_upper
        assert bound is not None and exact is not None
        failures += int((bound < exact).sum())
    # Two probes: each bound may fail with probability 1e-2.
    assert failures <= 0.01 * 60 * 3 * 30


def test_bounds_survive_a_condition_of_ten_to_the_sixty(chain):
    matrix = torch.diag(torch.tensor([10.0, 1e-5], dtype=torch.float64))
    turn = torch.linalg.qr(gaussian(1, 2, 2, 0)).Q
    matrices = [matrix[None] for _ in range(10)] + [turn]
    flow = measure(chain(matrices), Config()).gradient_flow[0]
    assert flow.upper.value == pytest.approx(1e10, rel=1e-10)
    assert flow.lower.value == pytest.approx(1e-50, rel=1e-8)


def test_relative_gain_takes_the_growth_of_the_states_out(chain):
    # A pre-norm residual stream in small: states grow by c a step, gradients shrink by as much.
    matrices = [torch.eye(4).double().expand(2, -1, -1) * 0.5 for _ in range(6)]
    measurements = measure(chain(matrices), Config())
    assert measurements.gradient_flow[0].gain.value == pytest.approx(0.5**6)
    assert measurements.gradient_flow[0].relative_gain.value == pytest.approx(1.0)
    network = measurements.network
    assert network.log_gradient_gain.value == pytest.approx(0.0, abs=1e-12)
    assert network.raw_log_gradient_gain.value == pytest.approx(6 * log(0.5))
    assert exp(network.log_signal_gain.value) == pytest.approx(0.5**6)
