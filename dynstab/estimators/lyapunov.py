"""The public `lyapunov_spectrum` and `lyapunov_spectra`: exponents along orbits of a map or of a vector field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from dynstab.core.errors import ConfigError, InputError
from dynstab.estimators.flow_orbit import FlowOrbit
from dynstab.estimators.orbit import MapOrbit, PackedStep
from dynstab.estimators.orbit_spectra import orbit_spectra, orbit_spectrum
from dynstab.estimators.separate_rows import check_rows
from dynstab.estimators.spectrum import LyapunovSpectrum
from dynstab.estimators.stepped_orbit import SteppedOrbit

_STEPS, _DT, _METHOD = 1000, 0.01, "rk4"


def lyapunov_spectrum(
    step: Callable[..., Any],
    state: Any,
    *,
    steps: int = _STEPS,
    k: int | None = None,
    discard: float = 0,
    seed: int = 0,
    memory_limit: int = 2**30,
    time: float | None = None,
    dt: float = _DT,
    method: str = _METHOD,
    compile: bool = False,
) -> LyapunovSpectrum:
    """Lyapunov exponents of the map state -> step(state), or with `time` of the vector field step(t, state).

    The exponents of a field are in nat per unit of time, and those of the solver's map: they differ from the
    field's by its error, O(dt^4) for rk4.

    Args:
        step: a pure function or an nn.Module. state: of any shape and floating-point dtype; for maps also complex, a
            number with two exponents then, or a tuple, list or dictionary of tensors, as an LSTM cell has, which the
            step takes and gives.
        steps: measured. discard: taken before, the first half without tangents (the transient of the
            state), the second half with them (the tangents turn into their directions).
        k: how many exponents; None is all of them. seed: of the first tangents.
        memory_limit: bytes of R factors kept for `finite_time`.
        compile: up to ten steps with their tangents, and what keeps these independent, into machine code by
            TorchInductor, which needs a C++ compiler and takes 1 to 15 s. Ten to twenty times faster where a step
            is many operations on few numbers: it pays from ten thousand steps or so. Where a step is large matrix
            products it saves little. Not for dopri5.
        time: measured, rounded to whole steps, of a vector field, whose state at t = 0 is `state`; `discard` is then
            a time too, and `steps` is not used. dt: length of a step.
        method: rk4, dopri5 (as many steps inside dt as its error control wants), midpoint or euler.

    Returns:
        A spectrum whose `outcome` names a divergence with its step, a field's blow-up or exhausted steps with their
        time, a collapse, a cycle.

    Raises:
        InputError: the state is not a floating-point tensor, or the step or field rejects it or does not answer in
            its shape.
        CaptureError: the step did not do the same at one point and later: it keeps something between its calls.
        ConfigError: `steps`, `time`, `dt`, `method`, `k`, `discard` or `compile` cannot be served.

    References:
        Benettin et al. (1980), Meccanica 15; Geist, Parlitz & Lauterborn (1990), Prog. Theor. Phys. 83.
    """
    packed = PackedStep(step, state) if time is None and PackedStep.needed(state) else None
    if packed is not None:
        step, state = packed, packed.start
    orbit, steps, discard = _orbit(step, state, None, steps, discard, time, dt, method)
    _check(orbit, k)
    found = orbit_spectrum(
        orbit, steps=steps, k=k, discard=discard, seed=seed, memory_limit=memory_limit, compile=compile
    )
    return found if packed is None else replace(found, state=packed.unpack(found.state))


def lyapunov_spectra(
    step: Callable[..., Any],
    states: Any,
    *,
    steps: int = _STEPS,
    k: int | None = None,
    discard: float = 0,
    seed: int = 0,
    memory_limit: int = 2**30,
    time: float | None = None,
    dt: float = _DT,
    method: str = _METHOD,
    compile: bool = False,
) -> list[LyapunovSpectrum]:
    """Lyapunov exponents of many trajectories in one run, each as `lyapunov_spectrum` has them.

        spectra = dynstab.lyapunov_spectra(torch.func.vmap(step), states)  # a step of one state, (trajectories, *shape)

    All take every step together, in one call, and are factorised together. What becomes of one is its own: it has
    its outcome, and where it diverges its numbers are NaN and the others go on as they would without it.

    Args:
        step: a pure function or an nn.Module of all states at once, which maps each row by itself; with `time` a
            vector field f(t, x) that does. Tensors of (trajectories, ...) in it make a parameter of each row's own.
        states: (trajectories, *shape), for maps in all the forms that `lyapunov_spectrum` takes.
        memory_limit: bytes of R factors kept for `finite_time`, of all trajectories together.
        method: rk4, midpoint or euler.
        steps, k, discard, seed, time, dt, compile: as for `lyapunov_spectrum`. All begin with the same tangents.

    Returns:
        A spectrum of each row, in order, with the row's last state. `products` are those spent on one row. Its
        `finite_time` is worked out for all of them when the first is read.

    Raises:
        InputError: the states are not floating-point tensors with a first dimension for trajectories, the step or
            field rejects them or does not answer in their shape, or a row of its answer depends on another row of
            the states.
        CaptureError, ConfigError: as for `lyapunov_spectrum`; dopri5, which would choose steps of its own for each
            trajectory.

    References:
        Benettin et al. (1980), Meccanica 15; Geist, Parlitz & Lauterborn (1990), Prog. Theor. Phys. 83.
    """
    packed = PackedStep(step, states, batched=True) if time is None and PackedStep.needed(states) else None
    if packed is not None:
        step, states = packed, packed.start
    if not isinstance(states, Tensor) or states.ndim == 0 or not len(states):
        got = f"shape {tuple(states.shape)}" if isinstance(states, Tensor) else f"type {type(states).__name__}"
        raise InputError(f"the states are of {got}", expected="a tensor (trajectories, *shape), one row at least")
    orbit, steps, discard = _orbit(step, states, len(states), steps, discard, time, dt, method)
    _check(orbit, k)
    check_rows(step if time is None else partial(step, states.new_tensor(0.0)), states)
    found = orbit_spectra(
        orbit, steps=steps, k=k, discard=discard, seed=seed, memory_limit=memory_limit, compile=compile
    )
    return found if packed is None else [replace(each, state=packed.unpack(each.state)) for each in found]


def _orbit(
    step: Callable[..., Any],
    state: Any,
    samples: int | None,
    steps: int,
    discard: float,
    time: float | None,
    dt: float,
    method: str,
) -> tuple[SteppedOrbit, int, int]:
    """The orbit, and how many steps are measured and discarded."""
    if time is None:
        if (dt, method) != (_DT, _METHOD):
            raise ConfigError(f"dt={dt}, method={method!r} for a map", expected="a vector field", remedy="give time=")
        if not isinstance(steps, int) or steps < 1:
            raise ConfigError(f"steps={steps!r}", expected="a whole number, one at least")
        if not isinstance(discard, (int, float)) or discard % 1 != 0 or discard < 0:
            raise ConfigError(f"discard={discard!r}", expected="a whole number of steps, 0 or more")
        return MapOrbit(step, state, samples=samples), steps, int(discard)
    if steps != _STEPS:
        raise ConfigError(f"steps={steps!r} with time={time!r}", expected="one of them", remedy="dt sets their length")
    if not all(isinstance(each, (int, float)) for each in (time, dt)) or not 0 < dt <= time < float("inf"):
        raise ConfigError(f"time={time!r}, dt={dt!r}", expected="0 < dt <= time, both finite")
    if not isinstance(discard, (int, float)) or not 0 <= discard < float("inf"):
        raise ConfigError(f"discard={discard!r}", expected="a time, 0 or more")
    orbit = FlowOrbit(step, state, dt=dt, method=method, samples=samples)
    return orbit, round(time / dt), round(discard / dt)


def _check(orbit: SteppedOrbit, k: int | None) -> None:
    size = orbit.layout.size
    if k is not None and not (isinstance(k, int) and 1 <= k <= size):
        raise ConfigError(f"k={k!r}", expected=f"1 to {size}, the size of the state", remedy="k=None takes all")
