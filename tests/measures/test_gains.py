"""The mean-field gain of a step."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dynstab.core.config import Config
from dynstab.core.estimate import Label
from dynstab.measures import measure
from dynstab.measures.effort import EFFORTS


def gaussian(samples: int, rows: int, cols: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, rows, cols, generator=generator, dtype=torch.float64) / cols**0.5


@pytest.mark.parametrize("free", [False, True])
def test_orthogonal_steps_have_gain_one(chain, request, free):
    if free:
        request.getfixturevalue("matrix_free")
    matrices = [torch.linalg.qr(gaussian(3, 12, 12, seed)).Q for seed in range(3)]
    for step in measure(chain(matrices), Config()).steps:
        assert step.rms_gain.value == pytest.approx(1.0, abs=1e-12)
        assert step.relative_gain.value == pytest.approx(1.0, abs=1e-12)
        assert step.rms_gain.label is (Label.ESTIMATE if free else Label.EXACT)


def test_gain_is_the_squared_frobenius_norm_over_the_rows(chain):
    matrix = gaussian(4, 9, 5)
    gain = measure(chain([matrix]), Config()).steps[0].rms_gain
    each = matrix.square().sum(dim=(1, 2)) / 9
    assert gain.value == pytest.approx(float(each.mean()), rel=1e-13)
    assert gain.spread == pytest.approx(float(each.std()), rel=1e-12)
    assert gain.samples == 4


def test_a_gaussian_step_of_variance_one_over_n_has_gain_one(chain):
    gain = measure(chain([gaussian(8, 200, 200)]), Config()).steps[0].rms_gain
    # tr(W W^T)/N averages 8 * 200^2 squares of relative variance 2.
    assert gain.value == pytest.approx(1.0, abs=4 * (2 / (8 * 200**2)) ** 0.5)


def test_relative_gain_is_blind_to_a_rescaling_of_the_states(chain):
    matrix = gaussian(2, 6, 6)
    start = torch.ones(2, 6, dtype=torch.float64)
    plain = measure(chain([matrix, matrix], start), Config()).steps[1]
    scaled = measure(chain([7 * matrix, matrix], start), Config()).steps[1]
    assert scaled.relative_gain.value == pytest.approx(plain.relative_gain.value, rel=1e-12)
    stretched = measure(chain([matrix, 5 * matrix], start), Config()).steps[1]
    assert stretched.rms_gain.value == pytest.approx(25 * plain.rms_gain.value, rel=1e-12)
    assert stretched.relative_gain.value == pytest.approx(plain.relative_gain.value, rel=1e-12)


def test_branch_share_of_a_residual_step_is_that_of_the_update(chain):
    update = 0.4 * gaussian(3, 10, 10)
    matrix = torch.eye(10, dtype=torch.float64) + update
    share = measure(chain([matrix], residual=True), Config()).steps[0].branch_share
    expected = update.square().sum(dim=(1, 2)) / matrix.square().sum(dim=(1, 2))
    assert share.value == pytest.approx(float(expected.mean()), rel=1e-12)
    assert measure(chain([matrix]), Config()).steps[0].branch_share.value == 1.0


def test_a_residual_step_without_update_has_no_share_beyond_rounding(chain):
    matrix = torch.eye(6, dtype=torch.float64).expand(2, -1, -1)
    share = measure(chain([matrix], residual=True), Config()).steps[0].branch_share
    assert share.value == 0.0 and share.error < 1e-13


@pytest.mark.usefixtures("matrix_free")
def test_probes_find_the_dense_gain_and_share_within_their_stated_errors(chain):
    deviations = []
    for seed in range(120):
        matrix = torch.eye(40, dtype=torch.float64) + 0.7 * gaussian(4, 40, 40, seed % 10)
        step = measure(chain([matrix], residual=True), Config(seed=seed, effort="quick")).steps[0]
        exact = matrix.square().sum(dim=(1, 2))
        update = (matrix - torch.eye(40)).square().sum(dim=(1, 2))
        gain, share = float((exact / 40).mean()), float((update / exact).mean())
        found = (step.rms_gain, gain), (step.branch_share, share)
        deviations.append([(estimate.value - truth) / estimate.error for estimate, truth in found])
    scaled = torch.tensor(deviations)
    # Student's t of 4 inputs with one degree of freedom each: 68% in one error becomes about 60%.
    within = (scaled.abs() < 1).double().mean(dim=0)
    assert bool((within > 0.45).all()) and bool((within < 0.85).all())
    assert bool(((scaled.abs() < 3).double().mean(dim=0) > 0.9).all())


@pytest.mark.usefixtures("matrix_free")
@pytest.mark.parametrize("samples", [1, 3, 20])
def test_standard_effort_never_uses_fewer_than_sixteen_probes(chain, samples):
    gain = measure(chain([gaussian(samples, 8, 8)]), Config()).steps[0].rms_gain
    assert gain.samples * gain.products >= 16


@pytest.mark.usefixtures("matrix_free")
def test_the_size_of_blocks_changes_no_number(chain, monkeypatch):
    trajectory = chain([gaussian(2, 30, 20), gaussian(2, 25, 30)])
    whole = measure(trajectory, Config(seed=5))
    monkeypatch.setitem(EFFORTS, "standard", replace(EFFORTS["standard"], chunk_bytes=1))
    split = measure(trajectory, Config(seed=5))
    for one, other in zip(whole.steps, split.steps, strict=True):
        assert one.rms_gain.value == pytest.approx(other.rms_gain.value, rel=1e-12)
    assert whole.gradient_flow[0].gain.value == pytest.approx(split.gradient_flow[0].gain.value, rel=1e-12)
