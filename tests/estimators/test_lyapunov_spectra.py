"""Many trajectories in one run, against each of them by itself."""

from __future__ import annotations

import math
import shutil
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dynstab
from dynstab.core.errors import ConfigError, InputError
from dynstab.core.estimate import CONVERGED
from dynstab.estimators.frame_walk import FrameWalk
from dynstab.estimators.recurrence import Recurrence
from dynstab.linear.operator import DenseOperator

F64 = torch.float64
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None, reason="torch.compile needs a C++ compiler"
)


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def henon(x: Tensor) -> Tensor:
    return torch.stack([1 - 1.4 * x[..., 0] ** 2 + x[..., 1], 0.3 * x[..., 0]], dim=-1)


def lorenz(t: Tensor, x: Tensor) -> Tensor:
    a, b, c = x.unbind(-1)
    return torch.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], dim=-1)


def assert_same(found: dynstab.LyapunovSpectrum, alone: dynstab.LyapunovSpectrum, atol: float) -> None:
    assert found.outcome == alone.outcome and found.steps == alone.steps and found.unit == alone.unit
    torch.testing.assert_close(found.qr, alone.qr, rtol=0, atol=atol)
    torch.testing.assert_close(found.state, alone.state, rtol=atol, atol=atol, equal_nan=True)
    assert found.sum == pytest.approx(alone.sum, abs=atol, nan_ok=True)
    assert found.entropy == pytest.approx(alone.entropy, abs=atol)


@pytest.mark.parametrize("k", [None, 3])
def test_each_row_has_the_spectrum_that_it_has_alone(k: int | None) -> None:
    weight, states = 2.0 * gaussian(12, 12) / 12**0.5, gaussian(5, 12, seed=1)
    options: dict[str, Any] = {"steps": 150, "discard": 40, "k": k, "seed": 3}
    spectra = dynstab.lyapunov_spectra(lambda h: torch.tanh(h) @ weight.T, states, **options)
    assert len(spectra) == 5
    for found, state in zip(spectra, states, strict=True):
        alone = dynstab.lyapunov_spectrum(lambda h: weight @ torch.tanh(h), state, **options)
        assert_same(found, alone, 1e-8)
        assert bool((found.errors > 0).all() and (found.errors < 0.1).all())
        torch.testing.assert_close(found.finite_time, alone.finite_time, rtol=0, atol=3e-4)
        assert found.finite_time is found.finite_time


def test_a_step_of_one_state_serves_by_vmap() -> None:
    states = 0.1 * gaussian(4, 2)
    spectra = dynstab.lyapunov_spectra(torch.func.vmap(henon), states, steps=300, discard=100)
    for found, state in zip(spectra, states, strict=True):
        assert_same(found, dynstab.lyapunov_spectrum(henon, state, steps=300, discard=100), 1e-8)
        assert found.sum == pytest.approx(math.log(0.3), abs=1e-10)


def test_a_parameter_of_each_row_gives_each_row_its_own_fate() -> None:
    """The logistic map from a fixed point to divergence, states without dimensions."""
    rates = torch.tensor([2.5, 3.2, 3.5, 4.5, 3.9, 4.2], dtype=F64)
    options: dict[str, Any] = {"steps": 400, "discard": 400}
    spectra = dynstab.lyapunov_spectra(lambda x: rates * x * (1 - x), torch.full((6,), 0.3, dtype=F64), **options)
    for found, rate in zip(spectra, rates, strict=True):
        alone = dynstab.lyapunov_spectrum(lambda x, r=rate: r * x * (1 - x), torch.tensor(0.3, dtype=F64), **options)
        torch.testing.assert_close(found.qr, alone.qr, rtol=0, atol=1e-9, equal_nan=True)
        assert found.outcome == alone.outcome and torch.equal(found.state, alone.state)
        assert found.steps == alone.steps
    assert [each.outcome.split()[0] for each in spectra] == [
        "collapsed",
        "settled",
        "settled",
        "diverged",
        CONVERGED,
    ] + ["diverged"]


@pytest.mark.parametrize("outside", [[5.0, 0.0], [1.35, 0.0], [1e150, 0.0]])
def test_a_row_that_diverges_leaves_the_others_and_their_factorisations_as_they_are(outside: list[float]) -> None:
    states = torch.cat([0.1 * gaussian(3, 2), torch.tensor([outside], dtype=F64)])[[0, 3, 1, 2]]
    spectra = dynstab.lyapunov_spectra(henon, states, steps=1000)
    without = dynstab.lyapunov_spectra(henon, states[[0, 2, 3]], steps=1000)
    alone = dynstab.lyapunov_spectrum(henon, states[1], steps=1000)
    lost = spectra.pop(1)
    assert lost.outcome == alone.outcome and lost.outcome.startswith("diverged at step")
    assert bool(lost.qr.isnan().all() and lost.errors.isnan().all() and lost.finite_time.isnan().all())
    assert math.isnan(lost.sum) and math.isnan(lost.kaplan_yorke_dimension) and not bool(lost.state.isfinite().all())
    for found, expected in zip(spectra, without, strict=True):
        assert_same(found, expected, 1e-7)
        torch.testing.assert_close(found.finite_time, expected.finite_time, rtol=0, atol=1e-3)
        # A few more on the way to the divergence, and then as rarely as before.
        assert int(found.method.split()[1]) <= int(expected.method.split()[1]) + 40


def test_where_all_rows_diverge_the_run_ends() -> None:
    calls = []

    def counted(x: Tensor) -> Tensor:
        calls.append(1)
        return x * x

    for discard in (0, 100):
        spectra = dynstab.lyapunov_spectra(counted, torch.tensor([[3.0], [1.5]]), steps=10**6, discard=discard)
        assert [each.outcome for each in spectra] == ["diverged at step 7", "diverged at step 8"]
    assert len(calls) < 200


def test_a_row_whose_tangents_overflow_is_named_and_left_alone() -> None:
    """x -> (x, g(x) y): y stays 0 where it began, and its tangent grows past all numbers in a step."""
    gain = torch.tensor([1.0, 1e200, 1.0], dtype=F64)

    def step(x: Tensor) -> Tensor:
        return torch.stack([3.9 * x[:, 0] * (1 - x[:, 0]), (gain * (gain * x[:, 1]))], dim=1)

    states = torch.tensor([[0.3, 0.0], [0.3, 0.0], [0.4, 0.0]], dtype=F64)
    first, overflown, last = dynstab.lyapunov_spectra(step, states, steps=300)
    assert overflown.outcome.startswith("non-finite") and bool(overflown.qr.isnan().all())
    for found in (first, last):
        assert found.outcome == CONVERGED and 0.3 < float(found.qr[0]) < 0.6


def test_fields_are_followed_over_the_same_times() -> None:
    states = torch.tensor([[1, 1, 20], [1e200, 1, 1], [-5, 3, 22]], dtype=F64)
    options: dict[str, Any] = {"time": 8.0, "dt": 0.01, "discard": 2.0}
    spectra = dynstab.lyapunov_spectra(lorenz, states, **options)
    for found, state in zip(spectra, states, strict=True):
        alone = dynstab.lyapunov_spectrum(lorenz, state, **options)
        assert found.outcome == alone.outcome and found.unit == "nat/time"
        torch.testing.assert_close(found.qr, alone.qr, rtol=0, atol=1e-7, equal_nan=True)
    assert spectra[1].outcome == "blew up at t = 0.01" and spectra[0].sum == pytest.approx(-41 / 3, abs=5e-3)


def test_states_may_be_tuples_of_tensors() -> None:
    torch.manual_seed(0)
    cell, x = nn.LSTMCell(2, 3).double(), gaussian(4, 2)
    states = (gaussian(4, 3, seed=1), gaussian(4, 3, seed=2))
    options: dict[str, Any] = {"steps": 60, "discard": 60}
    spectra = dynstab.lyapunov_spectra(lambda state: cell(x, state), states, **options)
    for row, found in enumerate(spectra):
        h, c = states
        alone = dynstab.lyapunov_spectrum(lambda state, row=row: cell(x[row], state), (h[row], c[row]), **options)
        torch.testing.assert_close(found.qr, alone.qr, rtol=0, atol=1e-9)
        assert isinstance(found.state, tuple) and found.state[0].shape == (3,)
        torch.testing.assert_close(found.state, alone.state)
    with pytest.raises(InputError, match="same number of trajectories"):
        dynstab.lyapunov_spectra(lambda state: state, (torch.zeros(4, 3), torch.zeros(3, 3)))


def test_a_step_that_cannot_be_captured_is_measured_by_another_route() -> None:
    def branching(x: Tensor) -> Tensor:
        return 3.9 * x * (1 - x) if float(x.detach().sum()) > -1e9 else x

    states = torch.tensor([[0.3], [0.4]], dtype=F64)
    spectra = dynstab.lyapunov_spectra(branching, states, steps=100)
    for found, state in zip(spectra, states, strict=True):
        assert_same(found, dynstab.lyapunov_spectrum(lambda x: 3.9 * x * (1 - x), state, steps=100), 1e-9)


def test_a_batch_of_one_is_a_batch() -> None:
    (found,) = dynstab.lyapunov_spectra(henon, torch.tensor([[0.1, 0.1]], dtype=F64), steps=200)
    assert_same(found, dynstab.lyapunov_spectrum(henon, torch.tensor([0.1, 0.1], dtype=F64), steps=200), 1e-12)


@needs_compiler
def test_compiled_stretches_give_the_same_and_count_a_divergence_in_steps() -> None:
    states = torch.cat([0.1 * gaussian(3, 2), torch.tensor([[1.35, 0.0]], dtype=F64)])
    plain, compiled = (
        dynstab.lyapunov_spectra(henon, states, steps=1000, discard=100, compile=compile) for compile in (False, True)
    )
    for found, expected in zip(compiled, plain, strict=True):
        assert found.outcome == expected.outcome
        assert found.sum == pytest.approx(expected.sum, abs=1e-9, nan_ok=True)
        torch.testing.assert_close(found.qr, expected.qr, rtol=0, atol=0.1, equal_nan=True)


@pytest.mark.parametrize("mix", ["batch norm", "mean", "sorted", "detached"])
def test_rows_that_are_mixed_are_refused(mix: str) -> None:
    steps = {
        "batch norm": nn.BatchNorm1d(3).double(),
        "mean": lambda x: x - 1e-3 * x.mean(dim=0),
        "sorted": lambda x: x.sort(dim=0).values,
        "detached": lambda x: torch.tanh(x - x[:1].detach()),
    }
    with pytest.raises(InputError, match=r"moves where only others.*vmap"):
        dynstab.lyapunov_spectra(steps[mix], gaussian(6, 3))
    assert dynstab.lyapunov_spectra(nn.BatchNorm1d(3).double().eval(), gaussian(6, 3), steps=5)


def test_rows_that_a_field_mixes_are_refused() -> None:
    with pytest.raises(InputError, match="moves where only others"):
        dynstab.lyapunov_spectra(lambda t, x: -x + x.roll(1, 0), gaussian(3, 2), time=1.0)


def test_what_cannot_be_served_in_a_batch_is_refused() -> None:
    with pytest.raises(ConfigError, match="choose its own.*rk4"):
        dynstab.lyapunov_spectra(lorenz, gaussian(2, 3), time=1.0, method="dopri5")
    with pytest.raises(ConfigError, match="1 to 2, the size"):
        dynstab.lyapunov_spectra(henon, gaussian(5, 2), k=3)
    for states in (torch.tensor(1.0), torch.zeros(0, 2), "rows"):
        with pytest.raises(InputError, match="one row at least"):
            dynstab.lyapunov_spectra(henon, states)
    with pytest.raises(InputError, match="floating-point"):
        dynstab.lyapunov_spectra(henon, torch.zeros(2, 2, dtype=torch.int64))


def test_returns_and_divergences_are_seen_row_by_row() -> None:
    time = torch.arange(60, dtype=F64)
    states = torch.stack([time % 3, time % 7, time, time], dim=1)
    states[20:, 3] = torch.inf
    for length in (1, 7, 10):
        watch = Recurrence(torch.full((4,), -1.0, dtype=F64), 4)
        told = [watch.see_stretch(each) for each in states.split(length)]
        assert told.count(False) == 1 and watch.going
        assert watch.period.tolist() == [3, 7, 0, 0] and watch.diverged.tolist() == [0, 0, 0, 21]
        assert watch.last(2).tolist() == [59.0] and watch.last(3).tolist() == [math.inf]
        assert "period 7" in (watch.outcome(-1.0, 1) or "")
        assert watch.outcome(0.1, 2) == "grows without bound"


def test_samples_left_out_of_a_walk_do_not_shorten_the_others_intervals() -> None:
    wide, narrow = torch.diag(torch.tensor([1.0, 1e-6], dtype=F64)), torch.diag(torch.tensor([1.0, 0.9], dtype=F64))
    both, alone = (FrameWalk(torch.eye(2, dtype=F64).expand(count, -1, -1), longest=10) for count in (2, 1))
    both.leave_out(torch.tensor([False, True]))
    for _ in range(40):
        both.push(DenseOperator(torch.stack([narrow, wide * torch.nan])))
        alone.push(DenseOperator(narrow))
    assert both.lengths == alone.lengths
    found = both.finish().values
    torch.testing.assert_close(found[:1], alone.finish().values)
    assert bool(found[1].isnan().all())


def test_last_digits_that_go_on_changing_do_not_lengthen_a_cycle() -> None:
    """Some of these cycles return exactly only after several rounds."""
    rates = torch.cat([torch.linspace(3.1, 3.4, 31, dtype=F64), torch.tensor([3.5, 3.74, 3.83], dtype=F64)])
    start = torch.full_like(rates, 0.3)
    spectra = dynstab.lyapunov_spectra(lambda x: rates * x * (1 - x), start, steps=1000, discard=2000)
    periods = [int(found.outcome.removeprefix("settled on a cycle of period ")) for found in spectra]
    assert periods == [2] * 31 + [4, 5, 3]
