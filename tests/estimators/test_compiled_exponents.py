"""Exponents by compiled stretches of steps, against those of the same steps one by one."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch
import torch._inductor
from torch import Tensor

import dynstab
from dynstab.core.errors import CaptureError, ConfigError
from dynstab.estimators.frame_walk import FrameWalk
from dynstab.estimators.orbit import MapOrbit
from dynstab.estimators.recurrence import Recurrence
from dynstab.linear.compiled_steps import CompiledSteps
from dynstab.linear.layout import Layout
from dynstab.linear.operator import DenseOperator
from dynstab.linear.tangent_program import TangentProgram

F64 = torch.float64
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None, reason="torch.compile needs a C++ compiler"
)


def vector(*entries: float) -> Tensor:
    return torch.tensor(entries, dtype=F64)


def henon(x: Tensor) -> Tensor:
    return torch.stack([1 - 1.4 * x[0] ** 2 + x[1], 0.3 * x[0]])


def compiled_steps(step: Any, x: Tensor, contexts: Any, k: int, **options: Any) -> CompiledSteps:
    program = TangentProgram(step, (x, *contexts[0]), k)
    return CompiledSteps(step, x, contexts, program, Layout(shapes=(x.shape,)), **options)


def both(step: Any, state: Any, **options: Any) -> tuple[dynstab.LyapunovSpectrum, dynstab.LyapunovSpectrum]:
    plain, compiled = (dynstab.lyapunov_spectrum(step, state, compile=compile, **options) for compile in (False, True))
    return plain, compiled


@needs_compiler
def test_compiled_exponents_of_a_chaotic_map_agree_within_their_errors() -> None:
    plain, compiled = both(henon, vector(0.1, 0.1), steps=3003, discard=200)
    assert compiled.steps == plain.steps == 3003 and compiled.outcome == plain.outcome
    for value, error, known in zip(compiled.qr, compiled.errors, (0.41922, -1.62319), strict=True):
        assert abs(float(value) - known) < 4 * float(error) < 0.05
    assert compiled.sum == pytest.approx(plain.sum, abs=1e-9)


@needs_compiler
def test_compiled_exponents_of_a_driven_flow_follow_its_time() -> None:
    """x' = cos(t) x - x / 4: the exponent over whole periods is -1/4."""
    period = 2 * torch.pi
    options: dict[str, Any] = {"time": 4 * period, "dt": period / 50, "discard": period, "method": "midpoint"}
    plain, compiled = both(lambda t, x: torch.cos(t) * x - x / 4, vector(1.0, 2.0), **options)
    torch.testing.assert_close(compiled.qr, plain.qr, rtol=0, atol=1e-10)
    torch.testing.assert_close(compiled.state, plain.state, rtol=1e-10, atol=0)
    assert float(compiled.qr[0]) == pytest.approx(-0.25, abs=1e-2)


@needs_compiler
def test_cycles_and_divergence_are_counted_in_steps_and_not_in_stretches() -> None:
    for rate, words in ((3.2, "settled on a cycle of period 2"), (4.5, "diverged at step")):
        start = vector(0.3) if rate < 4 else vector(1.0 + 1e-14)
        plain, compiled = both(lambda x, rate=rate: rate * x * (1 - x), start, steps=100, discard=400)
        assert words in compiled.outcome and compiled.outcome == plain.outcome


def test_a_stretch_of_states_is_seen_as_its_states_are() -> None:
    cycle = torch.arange(3, dtype=F64)[torch.arange(200) % 3, None]
    for length in (1, 7, 10):
        watch = Recurrence(vector(5.0))
        for states in cycle.split(length):
            assert watch.see_stretch(states)
        assert watch.period == 3 and watch.steps == 200
    watch, bad = Recurrence(vector(5.0)), torch.arange(20, dtype=F64)[:, None].clone()
    bad[13:] = torch.inf
    assert watch.see_stretch(bad[:10]) and not watch.see_stretch(bad[10:])
    assert watch.diverged == 14


@needs_compiler
def test_compiled_steps_give_what_the_steps_give_one_by_one() -> None:
    def step(x: Tensor, t: Tensor) -> Tensor:
        return (x.roll(-1, 0) - x.roll(1, 0)) * torch.cos(t) + x @ x.mT @ x / 9

    generator = torch.Generator().manual_seed(0)
    x, tangents = (torch.randn(*shape, generator=generator, dtype=F64) for shape in ((3, 2), (4, 3, 2)))
    times = [(vector(0.1 * i)[0],) for i in range(3)]
    states, moved, _ = compiled_steps(step, x, times, 4)(x, times, tangents)
    for (time,), after in zip(times, states, strict=True):
        tangents = torch.stack([torch.func.jvp(lambda x, t=time: step(x, t), (x,), (v,))[1] for v in tangents])
        x = step(x, time)
        torch.testing.assert_close(after, x)
    torch.testing.assert_close(moved, tangents)


@needs_compiler
@pytest.mark.parametrize("products", [False, True])
def test_what_is_eliminated_on_the_way_times_what_is_left_is_the_whole(products: bool) -> None:
    weight = torch.randn(6, 6, generator=torch.Generator().manual_seed(1), dtype=F64)

    def step(x: Tensor) -> Tensor:
        return weight @ torch.tanh(x) if products else (x.roll(-1, 0) - x.roll(2, 0)) * x.roll(1, 0) - 0.1 * x

    generator = torch.Generator().manual_seed(0)
    x, tangents = torch.randn(6, generator=generator, dtype=F64), torch.randn(4, 6, generator=generator, dtype=F64)
    whole = compiled_steps(step, x, [()] * 6, 4)(x, [()] * 12, tangents)
    states, left, factors = compiled_steps(step, x, [()] * 6, 4, every=2)(x, [()] * 12, tangents)
    torch.testing.assert_close(states, whole[0])
    assert factors.shape == (6, 1, 4, 4) and float(left.abs().max()) <= 1 + 1e-9
    columns = left.mT
    for upper in factors.flip(0):
        columns = columns @ upper[0]
    torch.testing.assert_close(columns, whole[1].mT, rtol=1e-8, atol=1e-8 * float(whole[1].abs().max()))


@needs_compiler
def test_stretches_over_which_the_columns_fall_together_are_walked_again_step_by_step() -> None:
    generator = torch.Generator().manual_seed(0)
    turned = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=F64)).Q @ torch.diag(vector(2, 1, 1e-4))
    orbit, frame = MapOrbit(lambda x: turned @ x, vector(1, 1, 1)), torch.eye(3, dtype=F64)[None]
    orbit.compile(2, 3)
    walk, single = FrameWalk(frame, interval=4), FrameWalk(frame, longest=1)
    for _ in range(2):
        walk.push(orbit.linearised(2))
    for _ in range(4):
        single.push(DenseOperator(turned))
    assert walk.lengths == [1, 1, 1, 1] and orbit.visited[-1].equal(orbit.state)
    torch.testing.assert_close(walk.finish().values, single.finish().values, rtol=1e-10, atol=0)
    torch.testing.assert_close(orbit.state, torch.linalg.matrix_power(turned, 4) @ vector(1, 1, 1))


@needs_compiler
def test_a_step_that_changes_is_noticed() -> None:
    slope = [1.0]
    compiled = compiled_steps(lambda x: slope[0] * x, vector(1.0, 1.0), [()], 1)
    slope[0] = -2.0
    with pytest.raises(CaptureError, match="another way"):
        compiled(vector(1.0, 1.0), [()], torch.ones(1, 2, dtype=F64))


def test_what_cannot_be_compiled_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def branching(x: Tensor) -> Tensor:
        return x / 2 if float(x.detach().sum()) > 2 else x / 3

    with pytest.raises(ConfigError, match="branches on values"):
        dynstab.lyapunov_spectrum(branching, vector(1.0, 1.0), steps=100, compile=True)
    with pytest.raises(ConfigError, match="dopri5"):
        dynstab.lyapunov_spectrum(lambda t, x: -x, vector(1.0), time=1.0, dt=0.01, method="dopri5", compile=True)

    def missing(*_: Any, **__: Any) -> Any:
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(torch._inductor, "compile", missing)
    with pytest.raises(ConfigError, match=r"C\+\+ compiler.*compile=False"):
        dynstab.lyapunov_spectrum(henon, vector(0.1, 0.1), steps=100, compile=True)
