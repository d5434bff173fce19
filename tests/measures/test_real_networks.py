"""Measures on captured networks against autograd on the untouched module."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from dynstab.core.config import Config
from dynstab.core.estimate import Label
from dynstab.measures import measure
from dynstab.measures.effort import EFFORTS
from dynstab.systems.depth import depth_system


class Block(nn.Module):
    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.mix = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
        self.causal = causal

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = causal_mask(x) if self.causal else None
        y = self.norms[0](x)
        x = x + self.mix(y, y, y, attn_mask=mask, need_weights=False)[0]
        return x + self.mlp(self.norms[1](x))


def causal_mask(x: torch.Tensor) -> torch.Tensor:
    return nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=x.dtype)


def transformer(blocks: int, width: int = 8, causal: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*(Block(width, 2, causal) for _ in range(blocks))).eval()


def jacobians(module: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """(inputs, rows, cols) of the whole network."""

    def single(row: torch.Tensor) -> torch.Tensor:
        return module(row[None])[0]

    with sdpa_kernel(SDPBackend.MATH):
        return torch.stack([torch.func.jacrev(single)(row).reshape(row.numel(), row.numel()) for row in x])


@pytest.mark.parametrize("free", [False, True])
def test_gradient_gain_of_a_transformer_is_that_of_autograd(request, free):
    if free:
        request.getfixturevalue("matrix_free")
    module = transformer(4).double()
    x = torch.randn(4, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    trajectory = depth_system(module, (x,)).trajectory
    assert [step.kind for step in trajectory.steps] == ["residual"] * 8
    measurements = measure(trajectory, Config(k=3))
    exact = jacobians(module, x).detach()
    log_gain = (exact.square().sum(dim=(1, 2)) / 40).log() / 2
    gain = measurements.network.raw_log_gradient_gain
    probes = 0.0 if not free else 4 * measurements.gradient_flow[0].gain.error
    assert gain.value == pytest.approx(float(log_gain.mean()), abs=1e-10 + probes)
    sizes = x.flatten(1).norm(dim=1).log() - module(x).detach().flatten(1).norm(dim=1).log()
    relative = float((log_gain + sizes).mean())
    assert measurements.network.log_gradient_gain.value == pytest.approx(relative, abs=1e-10 + probes)
    leading = torch.linalg.svdvals(exact)[:, 0].log().mean().exp()
    found = measurements.network.largest_singular_values[0]
    assert found.value == pytest.approx(float(leading), rel=1e-10 if not free else 2e-2)


@pytest.mark.usefixtures("matrix_free")
def test_a_causal_transformer_has_exact_eigenvalues_and_determinant_without_its_jacobian():
    module = transformer(3).double()
    x = torch.randn(2, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    measurements = measure(depth_system(module, (x,)).trajectory, Config(k=2))
    whole = torch.linalg.slogdet(jacobians(module, x).detach()).logabsdet
    assert measurements.network.log_determinant.value == pytest.approx(float(whole.mean()), rel=1e-9)
    assert measurements.lyapunov.sum.value == pytest.approx(float(whole.mean()) / 6, rel=1e-9)
    block = module[0]
    assert isinstance(block, Block)

    def attend(y: torch.Tensor) -> torch.Tensor:
        normed = block.norms[0](y)
        return y + block.mix(normed, normed, normed, attn_mask=causal_mask(y), need_weights=False)[0]

    first = jacobians(attend, x)
    radius = torch.linalg.eigvals(first.detach()).abs().amax(dim=1)
    step = measurements.steps[0]
    assert step.spectral_radius.value == pytest.approx(float(radius.mean()), rel=1e-9)
    assert step.spectral_radius.label is Label.EXACT and step.log_determinant.label is Label.EXACT


def test_a_transformer_has_kinks_states_and_a_flow_of_gradients_to_show():
    module = transformer(4).double()
    x = torch.randn(3, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    measurements = measure(depth_system(module, (x,)).trajectory, Config(k=2))
    mlp = measurements.steps[1]
    assert mlp.dead_fraction.measured and mlp.kink_fraction.value == 0.0
    assert not measurements.steps[0].dead_fraction.measured
    assert measurements.network.causal is True and measurements.network.batch_coupled is False
    assert measurements.network.depth_smoothness.value > 1
    assert measurements.network.refinement_order.measured
    assert all(0 < state.effective_rank.value <= 1 for state in measurements.states)
    for flow in measurements.gradient_flow:
        assert flow.lower.value <= flow.gain.value <= flow.upper.value <= flow.product_upper.value * (1 + 1e-9)


def test_layer_norm_takes_two_directions_from_every_token():
    torch.manual_seed(0)
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    step = measure(depth_system(nn.LayerNorm(8).double(), (x,)).trajectory, Config()).steps[0]
    # Exactly so for eps = 0; with it the radial direction keeps a gain of order eps.
    assert step.singular_values[0].label is Label.EXACT
    assert step.nullity.value == 5
    assert step.smallest_singular_value.value < 1e-3


@pytest.mark.parametrize("free", [False, True])
def test_bfloat16_steps_are_measured_to_their_precision(chain, request, free):
    generator = torch.Generator().manual_seed(0)
    matrices = [torch.eye(20) + 0.3 * torch.randn(4, 20, 20, generator=generator) / 20**0.5 for _ in range(4)]
    start = torch.randn(4, 20, generator=generator)
    exact = measure(chain(matrices, start, residual=True), Config(k=2))
    if free:
        request.getfixturevalue("matrix_free")
    half = measure(chain([m.bfloat16() for m in matrices], start.bfloat16(), residual=True), Config(k=2))
    assert half.partial == ()
    for name in ("raw_log_gradient_gain", "log_signal_gain"):
        assert getattr(half.network, name).value == pytest.approx(getattr(exact.network, name).value, abs=0.05)
    assert half.steps[0].largest_singular_value.value == pytest.approx(
        exact.steps[0].largest_singular_value.value, rel=0.02
    )
    assert half.network.underflow_depth.method.endswith("bfloat16")


def test_a_coupled_batch_is_one_input(chain):
    trajectory = chain([torch.eye(6)[None]] * 3, coupled=True)
    network = measure(trajectory, Config(k=2)).network
    assert network.batch_coupled is True
    assert network.log_gradient_gain.samples == 1 and network.log_gradient_gain.error is not None


@pytest.mark.parametrize("effort", list(EFFORTS))
@pytest.mark.usefixtures("matrix_free")
def test_a_rectangular_network_is_measured_at_every_effort(effort):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(30, 50), nn.ReLU(), nn.Linear(50, 50), nn.ReLU(), nn.Linear(50, 3))
    measurements = measure(depth_system(module, (torch.randn(8, 30),)).trajectory, Config(effort=effort))
    assert measurements.partial == ()
    assert len(measurements.lyapunov.qr) == 3
    assert measurements.gradient_flow[0].upper.label is Label.PROBABILISTIC
    assert measurements.gradient_flow[0].gain.value <= measurements.gradient_flow[0].upper.value
