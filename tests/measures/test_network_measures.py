"""The whole network: growth laws, the finite-width null, refinement, ranges."""

from __future__ import annotations

from dataclasses import replace
from math import log, pi, sqrt

import pytest
import torch

from dynstab.core.config import Config
from dynstab.linear.layout import Layout
from dynstab.linear.operator import DenseOperator
from dynstab.measures import measure
from dynstab.measures.blocks import repeated_blocks
from dynstab.measures.growth import fit_growth
from dynstab.measures.refinement import refinement_order
from dynstab.measures.width_null import mixed_features, width_null
from dynstab.systems.trajectory import State, Step, Trajectory


@pytest.mark.parametrize(
    ("law", "shape"),
    [("exponential", torch.clone), ("square-root", torch.sqrt), ("logarithmic", torch.log1p)],
)
def test_each_law_of_growth_is_recognised(law, shape):
    depth = torch.arange(41, dtype=torch.float64)
    noise = 0.02 * torch.randn(41, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fit = fit_growth(-2.0 * shape(depth) + noise)
    assert fit is not None and fit.law == law
    assert fit.errors[law] == min(fit.errors.values())


def test_the_rate_is_positive_where_gradients_grow_towards_the_input():
    fit = fit_growth(torch.arange(10, 0, -1, dtype=torch.float64))
    assert fit is not None and fit.rate == pytest.approx(1.0)


def test_no_law_is_named_for_a_flat_or_a_ragged_profile_or_a_short_one():
    flat = fit_growth(0.01 * torch.arange(20, dtype=torch.float64))
    ragged = fit_growth(3 * torch.randn(30, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    assert flat is not None and flat.law == "none"
    assert ragged is not None and ragged.law == "none"
    assert fit_growth(torch.arange(5, dtype=torch.float64)) is None
    assert fit_growth(torch.full((10,), float("nan"), dtype=torch.float64)) is None


def vectors(width: int, samples: int = 1) -> State:
    layout = Layout(shapes=(torch.Size((samples, width)),), samples=samples, sample_dims=(0,))
    return State(index=0, name="x", value=(torch.zeros(samples, width),), layout=layout, feature_dim=1)


def random_log_gains(networks: int, width: int, depth: int, kind: str, scale: float) -> torch.Tensor:
    """ln |J v| of many random networks at criticality, one random direction each."""
    generator = torch.Generator().manual_seed(7)
    v = torch.randn(networks, width, generator=generator, dtype=torch.float64)
    v, total = v / v.norm(dim=1, keepdim=True), torch.zeros(networks, dtype=torch.float64)
    for _ in range(depth):
        w = torch.randn(networks, width, width, generator=generator, dtype=torch.float64) / width**0.5
        image = (w @ v[:, :, None])[:, :, 0]
        if kind == "relu":
            v = 2**0.5 * image * (torch.rand(networks, width, generator=generator) < 0.5)
        else:
            v = (v + scale * image) / (1 + scale**2) ** 0.5
        total += v.norm(dim=1).log()
        v = v / v.norm(dim=1, keepdim=True)
    return total


@pytest.mark.parametrize(
    ("kind", "scale", "width", "depth"), [("relu", 1.0, 32, 50), ("relu", 1.0, 64, 20), ("residual", 0.3, 32, 50)]
)
def test_width_null_is_what_random_critical_networks_show(kind, scale, width, depth):
    gains = random_log_gains(1000, width, depth, kind, scale)
    share = 1.0 if kind == "relu" else scale**2 / (1 + scale**2)
    null = width_null([vectors(width)] * (depth + 1), [share] * depth)
    assert null.value == pytest.approx(float(gains.mean()), abs=0.1 * abs(null.value) + 4 * null.error / 1000**0.5)
    assert null.error == pytest.approx(float(gains.std()), rel=0.2)


def test_a_relu_network_of_width_32_and_depth_50_reads_e_to_the_minus_four_at_criticality():
    null = width_null([vectors(32)] * 51, [1.0] * 50)
    assert 2 * null.value == pytest.approx(-2.5 * 50 / 32)
    assert 2 * null.error == pytest.approx(sqrt(5 * 50 / 32))


def test_positions_that_share_weights_average_no_more_than_the_features():
    def tokens(count: int, width: int) -> State:
        value = torch.zeros(1, count, width)
        layout = Layout(shapes=(value.shape,))
        return State(index=0, name="x", value=(value,), layout=layout, token_dim=1, feature_dim=2)

    assert mixed_features(vectors(32)) == 32
    assert mixed_features(tokens(4, 32)) == 4 * 32
    assert mixed_features(tokens(1000, 32)) == 32 * 32


def residual_stack(weights: list[torch.Tensor], scale: float, samples: int = 4) -> Trajectory:
    """x + scale * tanh(W_l x), one step a block."""
    generator = torch.Generator().manual_seed(0)
    size = len(weights[0])
    layout = Layout(shapes=(torch.Size((samples, size)),), samples=samples, sample_dims=(0,))
    value = torch.randn(samples, size, generator=generator, dtype=torch.float64)
    states = [State(index=0, name="x0", value=(value,), layout=layout)]
    steps = []
    for index, weight in enumerate(weights):

        def block(tensors, weight=weight):
            (x,) = tensors
            return (x + scale * torch.tanh(x @ weight.T),)

        slope = 1 - torch.tanh(value @ weight.T).square()
        jacobian = torch.eye(size, dtype=torch.float64) + scale * slope[:, :, None] * weight
        (value,) = block((value,))
        states.append(State(index=index + 1, name=f"x{index + 1}", value=(value,), layout=layout))
        steps.append(
            Step(
                index=index,
                name=f"block {index}",
                kind="residual",
                source=index,
                target=index + 1,
                jacobian=DenseOperator(jacobian),
                function=block,
                residual_coefficient=1.0,
                parameters=(weight,),
            )
        )
    return Trajectory(kind="depth", states=tuple(states), steps=tuple(steps), samples=samples)


def random_weights(count: int, size: int = 24) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(size, size, generator=generator, dtype=torch.float64) / size**0.5 for _ in range(count)]


def test_a_tied_stack_is_a_sampled_flow_of_order_one():
    network = measure(residual_stack(random_weights(1) * 32, 1 / 32), Config(k=2, effort="quick")).network
    assert network.refinement_order.value == pytest.approx(1.0, abs=0.1)
    assert network.depth_smoothness.value == pytest.approx(0.0, abs=1e-9)


def test_a_stack_whose_weights_turn_slowly_is_a_sampled_flow_of_order_one():
    one, other = random_weights(2)
    angles = [pi * step / 64 for step in range(32)]
    weights = [torch.cos(torch.tensor(a)) * one + torch.sin(torch.tensor(a)) * other for a in angles]
    network = measure(residual_stack(weights, 1 / 32), Config(k=2, effort="quick")).network
    assert network.refinement_order.value == pytest.approx(1.0, abs=0.15)
    assert network.depth_smoothness.value == pytest.approx(32 * pi / 64, rel=0.2)


@pytest.mark.parametrize("scale", [1 / 32, 1 / 32**0.5])
def test_a_stack_of_independent_weights_is_not_a_sampled_flow(scale):
    network = measure(residual_stack(random_weights(32), scale), Config(k=2, effort="quick")).network
    assert network.refinement_order.value < 0.8
    assert network.depth_smoothness.value == pytest.approx(32 * 2**0.5, rel=0.1)


def test_repeated_blocks_of_several_steps_are_found_behind_a_different_first_one():
    big, small = random_weights(1, 24)[0], torch.ones(1, 24, dtype=torch.float64)
    trajectory = residual_stack([big] * 11, 0.1)
    steps = [
        replace(step, parameters=(big,) if step.index == 0 else (small, big) if step.index % 2 else (small,))
        for step in trajectory.steps
    ]
    found = repeated_blocks(Trajectory(kind="depth", states=trajectory.states, steps=tuple(steps), samples=4))
    assert found is not None and (found.period, found.count, found.steps[0].index) == (2, 5, 1)
    assert refinement_order(found).value == pytest.approx(1.0, abs=0.2)


def test_plain_and_short_stacks_have_no_refinement_order(chain):
    plain = measure(chain([torch.eye(3).double()[None]] * 8), Config()).network
    short = measure(residual_stack(random_weights(3), 0.1), Config(k=1)).network
    for network in (plain, short):
        assert network.refinement_order.outcome == "needs four residual blocks that repeat"
        assert not network.depth_smoothness.measured


def test_gradients_at_a_rate_leave_the_range_of_a_format_when_the_logarithm_says(chain):
    trajectory = chain([0.5 * torch.eye(3).double().expand(2, -1, -1)] * 4)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        depth = measure(trajectory, Config(k=1), training_dtype=dtype).network.underflow_depth
        assert depth.value == pytest.approx(-log(torch.finfo(dtype).tiny) / log(2))
    grows = measure(chain([3.0 * torch.eye(3).double()[None]] * 4), Config(k=1), training_dtype=torch.float16)
    assert grows.network.underflow_depth.value == pytest.approx(log(65504) / log(3))


def test_a_given_cotangent_sets_the_scale_of_the_gradient(chain):
    trajectory = chain([0.5 * torch.eye(4).double().expand(2, -1, -1)] * 4)
    cotangent = torch.full((2, 4), 2.0**-10, dtype=torch.float64)
    measurements = measure(trajectory, Config(k=1), cotangent=(cotangent,), training_dtype=torch.float16)
    assert measurements.network.underflow_depth.value == pytest.approx(14 - 10)


def test_error_of_the_gradient_gain_is_the_standard_error_over_inputs(chain):
    scales = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    matrices = [scales[:, None, None] * torch.eye(3).double()]
    gain = measure(chain(matrices, torch.ones(3, 3).double()), Config()).network.raw_log_gradient_gain
    assert gain.value == pytest.approx(log(2))
    assert gain.spread == pytest.approx(log(2))
    assert gain.error == pytest.approx(log(2) / 3**0.5)
    assert gain.samples == 3


def test_mean_and_median_may_disagree(chain):
    scales = torch.tensor([1.0, 1.0, 1e-9], dtype=torch.float64)
    start = torch.ones(3, 3, dtype=torch.float64)
    matrices = [torch.diag_embed(torch.stack([scales, torch.ones_like(scales), torch.ones_like(scales)], dim=1))]
    cotangent = torch.eye(3, dtype=torch.float64)[:1].repeat(3, 1)
    network = measure(chain(matrices * 2, start), Config(k=1), cotangent=(cotangent,)).network
    assert network.median_log_gradient_gain.value > -1
    assert network.log_gradient_gain.value < -10


def test_a_first_state_of_zero_has_no_relative_scale(chain):
    network = measure(chain([torch.eye(3).double()[None]], torch.zeros(1, 3).double()), Config()).network
    assert "first state is zero" in network.log_gradient_gain.outcome
    assert network.raw_log_gradient_gain.value == pytest.approx(0.0, abs=1e-12)


def test_a_dead_network_has_a_gradient_of_zero(chain):
    matrices = [torch.eye(3).double()[None], torch.zeros(1, 3, 3).double(), torch.eye(3).double()[None]]
    measurements = measure(chain(matrices), Config())
    assert measurements.network.log_gradient_gain.value == -float("inf")
    assert measurements.gradient_flow[0].gain.value == 0.0
    assert measurements.gradient_flow[0].lower.value == measurements.gradient_flow[0].upper.value == 0.0


def tanh_network(sigma_w: float, sigma_b: float, width: int, depth: int) -> tuple[float, float]:
    """Mean chi of the last ten layers of a random tanh network, through `measure`, and its error."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, width, generator=generator, dtype=torch.float64)
    layout = Layout(shapes=(x.shape,), samples=2, sample_dims=(0,))
    states, steps = [State(index=0, name="x0", value=(x,), layout=layout)], []
    for index in range(depth):
        weight = sigma_w * torch.randn(width, width, generator=generator, dtype=torch.float64) / width**0.5
        bias = sigma_b * torch.randn(width, generator=generator, dtype=torch.float64)
        preactivation = x @ weight.T + bias
        x = torch.tanh(preactivation)
        jacobian = (1 - x.square())[:, :, None] * weight
        states.append(State(index=index + 1, name=f"x{index + 1}", value=(x,), layout=layout))
        steps.append(
            Step(
                index=index,
                name=f"tanh {index}",
                kind="plain",
                source=index,
                target=index + 1,
                jacobian=DenseOperator(jacobian),
                function=lambda tensors, w=weight, b=bias: (torch.tanh(tensors[0] @ w.T + b),),
            )
        )
    trajectory = Trajectory(kind="depth", states=tuple(states), steps=tuple(steps), samples=2)
    gains = [step.rms_gain for step in measure(trajectory, Config(effort="quick", k=1)).steps[-10:]]
    return sum(gain.value for gain in gains) / 10, sum(gain.error**2 for gain in gains) ** 0.5 / 10


def test_tanh_network_has_gain_one_at_the_critical_weight_variance():
    chi, error = tanh_network(1.76095**0.5, 0.05**0.5, width=600, depth=24)
    # Finite width leaves a few parts in a thousand beside the probes' noise.
    assert chi == pytest.approx(1.0, abs=4 * error + 0.015)
    ordered, _ = tanh_network(1.4**0.5, 0.05**0.5, width=300, depth=24)
    chaotic, _ = tanh_network(2.3**0.5, 0.05**0.5, width=300, depth=24)
    assert ordered < 0.93 and chaotic > 1.07
