"""The public `lyapunov_spectrum`: exponents along the orbit of a map or of a vector field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dynstab.core.errors import ConfigError
from dynstab.core.estimate import CONVERGED
from dynstab.estimators.dimension import expansion_sum, kaplan_yorke_dimension
from dynstab.estimators.flow_orbit import FlowOrbit, VectorField
from dynstab.estimators.orbit import MapOrbit, PackedStep, Recurrence
from dynstab.estimators.orthogonal import HALF, random_frame
from dynstab.estimators.qr import LONGEST_INTERVAL, FrameWalk, QRExponents
from dynstab.estimators.spectrum import LyapunovSpectrum, Propagator
from dynstab.estimators.stepped_orbit import SteppedOrbit

_MANY = 64  # tangents from which factorisations take as long as the steps
_REACH = 0.6  # for so many: the smallest R_ii is known to a relative 1e-4 then, and a third of the time is saved
_LONGEST_STRETCH = 10  # steps compiled into one
_SETTLED = 3  # factorisations after which an interval means something


def lyapunov_spectrum(
    step: Callable[..., Any],
    state: Any,
    *,
    steps: int = 1000,
    k: int | None = None,
    discard: float = 0,
    seed: int = 0,
    memory_limit: int = 2**30,
    time: float | None = None,
    dt: float = 0.01,
    method: str = "rk4",
    compile: bool = False,
) -> LyapunovSpectrum:
    """Lyapunov exponents of the map state -> step(state), or with `time` of the vector field step(t, state).

    Args:
        step: a pure function or an nn.Module. state: of any shape and floating-point dtype, or a tuple of such
            tensors, as an LSTM cell has; the step then takes and gives the tuple.
        steps: measured. discard: taken before, the first half without tangents (the transient of the
            state), the second half with them (the tangents turn into their directions).
        k: how many exponents; None is all of them. seed: of the first tangents.
        memory_limit: bytes of R factors kept for `finite_time`.
        compile: up to ten steps with their tangents into one, by torch.compile, which needs a C++ compiler and takes
            5 to 30 s. Up to eight times faster where a step is many operations on few numbers: it pays from tens of
            thousands of steps. Where a step is a large matrix product it is slower.
        time, dt, method: of a vector field, see `flow_spectrum`; `discard` is then a time, `steps` is not used.

    Raises:
        InputError: the state is not a floating-point tensor or the step does not map it to its like.
        ConfigError: `steps`, `k`, `discard` or `compile` cannot be served.

    References:
        Benettin et al. (1980), Meccanica 15; Geist, Parlitz & Lauterborn (1990), Prog. Theor. Phys. 83.
    """
    further: dict[str, Any] = {"k": k, "seed": seed, "memory_limit": memory_limit, "compile": compile}
    if time is not None:
        return flow_spectrum(step, state, time=time, dt=dt, method=method, discard=discard, **further)
    discard = int(discard)
    if isinstance(state, (tuple, list)):
        packed = PackedStep(step, state)
        found = lyapunov_spectrum(packed, packed.start, steps=steps, discard=discard, **further)
        return replace(found, state=packed.unpack(found.state))
    _check(state, steps, k, discard)
    return orbit_spectrum(MapOrbit(step, state), steps=steps, discard=discard, **further)


def flow_spectrum(
    field: VectorField,
    state: Tensor,
    *,
    time: float = 200.0,
    dt: float = 0.01,
    method: str = "rk4",
    k: int | None = None,
    discard: float = 0.0,
    seed: int = 0,
    memory_limit: int = 2**30,
    compile: bool = False,
) -> LyapunovSpectrum:
    """Lyapunov exponents of the vector field x' = field(t, x), in nat per unit of time.

    The exponents are those of the solver's map: they differ from the field's by its error, O(dt^4) for rk4.

    Args:
        field: a pure function or an nn.Module of a time without dimensions and a state. state: at t = 0, of any
            shape and floating-point dtype.
        time: measured, rounded to whole steps. dt: length of a step. discard: time taken before, the first half
            without tangents.
        method: rk4, dopri5 (as many steps inside dt as its error control wants), midpoint or euler.
        k, seed, memory_limit: as for `lyapunov_spectrum`. compile: as there; not for dopri5.

    Returns:
        A spectrum whose `outcome` names a blow-up, exhausted steps or a collapse, with the time of it.

    Raises:
        InputError: the state is not a floating-point tensor or the field does not answer in its shape.
        ConfigError: `time`, `dt`, `method`, `k` or `discard` cannot be served.

    References:
        Benettin et al. (1980), Meccanica 15; Geist, Parlitz & Lauterborn (1990), Prog. Theor. Phys. 83.
    """
    if not 0 < dt <= time < float("inf"):
        raise ConfigError(f"time={time:g}, dt={dt:g}", expected="0 < dt <= time, both finite")
    steps, transient = round(time / dt), round(discard / dt)
    _check(state, steps, k, transient)
    orbit = FlowOrbit(field, state, dt=dt, method=method)
    found = orbit_spectrum(
        orbit, steps=steps, k=k, discard=transient, seed=seed, memory_limit=memory_limit, compile=compile
    )
    if not found.outcome.startswith("diverged"):
        return found
    return replace(found, outcome=orbit.failure or f"blew up at t = {orbit.time:.6g}")


def orbit_spectrum(
    orbit: SteppedOrbit,
    *,
    steps: int,
    k: int | None,
    discard: int,
    seed: int,
    memory_limit: int,
    compile: bool = False,
    longest: int = LONGEST_INTERVAL,
) -> LyapunovSpectrum:
    """The spectrum along any orbit, per unit of its time; `longest`: steps between factorisations at most."""
    watch, size = Recurrence(orbit.state), orbit.state.numel()
    dtype = torch.float32 if orbit.state.dtype in HALF else orbit.state.dtype
    frame = random_frame(1, size, min(k or size, size), seed=seed, dtype=dtype, device=orbit.state.device)
    for _ in range(discard - discard // 2):
        orbit.advance()
        if not watch.see_stretch(orbit.visited):
            return _diverged(orbit, watch, frame.shape[2], 0)
    # Over thousands of steps one is sure to be ill-conditioned: only rounding itself counts as a lost direction.
    floor = 2 * torch.finfo(orbit.state.dtype).eps
    longest = min(longest, LONGEST_INTERVAL, max(1, steps // 20))
    reach = _REACH if frame.shape[2] >= _MANY else FrameWalk.reach
    burn_in = FrameWalk(frame, keep_factors=False, floor=floor, longest=longest, reach=reach)
    if not _walk(orbit, watch, burn_in, discard // 2, compile):
        return _diverged(orbit, watch, frame.shape[2], burn_in.products)
    burn_in.factorise()
    walk = FrameWalk(burn_in.frame, floor=floor, memory_limit=memory_limit, longest=longest, reach=reach)
    walk.orthogonal = min(LONGEST_INTERVAL, max(1, steps // 20))  # so that standard errors mean something
    walk.interval = burn_in.interval
    if not _walk(orbit, watch, walk, steps, compile):
        return _diverged(orbit, watch, frame.shape[2], burn_in.products + walk.products)
    return _spectrum(orbit, watch, walk.finish(), walk.keep_factors, burn_in.products)


def _walk(orbit: SteppedOrbit, watch: Recurrence, walk: FrameWalk, steps: int, compile: bool) -> bool:
    left = steps
    while left:
        if compile and not orbit.stretch and len(walk.lengths) >= _SETTLED:
            # Half an interval: a spread that grows on the way is still met between two stretches.
            orbit.compile(min(_LONGEST_STRETCH, walk.longest, max(1, walk.interval // 2)), walk.width)
        if walk.room < orbit.stretch:
            walk.factorise()
        count = orbit.stretch if 0 < orbit.stretch <= min(left, walk.room) else 1
        walk.push(orbit.linearised(count))
        if not watch.see_stretch(orbit.visited):
            return False
        left -= count
    return True


def _spectrum(
    orbit: SteppedOrbit, watch: Recurrence, found: QRExponents, kept: bool, burn_in_products: int
) -> LyapunovSpectrum:
    steps, (k,) = sum(found.lengths), found.values.shape[1:]
    full, rate = k == orbit.state.numel(), 1 / orbit.time_step
    qr, method = found.values[0].cpu() * rate, found.method
    if kept:
        method += f"; finite-time ones by product QR of {len(found.factors)} factors"
        method += "" if full else " on the tangents carried (lower bounds)"
    else:
        method += "; R factors exceed the memory limit, not kept"
    broken = None if found.converged else found.outcome
    return LyapunovSpectrum(
        qr=qr,
        errors=found.errors[0].cpu() * rate,
        sum=float(qr.sum()) if full else torch.nan,
        kaplan_yorke_dimension=kaplan_yorke_dimension(qr, full=full),
        entropy=expansion_sum(qr),
        state=orbit.state,
        steps=steps,
        outcome=broken or watch.outcome(float(qr[0])) or CONVERGED,
        products=found.products + burn_in_products,
        method=method,
        unit=orbit.unit,
        propagator=Propagator(found.factors if kept else (), k=k, steps=steps, time_step=orbit.time_step),
    )


def _diverged(orbit: SteppedOrbit, watch: Recurrence, k: int, products: int) -> LyapunovSpectrum:
    nothing = torch.full((k,), torch.nan, dtype=torch.float64)
    return LyapunovSpectrum(
        qr=nothing,
        errors=nothing.clone(),
        sum=torch.nan,
        kaplan_yorke_dimension=torch.nan,
        entropy=torch.nan,
        state=orbit.state,
        steps=watch.steps,
        outcome=watch.outcome(torch.nan) or CONVERGED,
        products=products,
        method="none",
        unit=orbit.unit,
        propagator=Propagator((), k=k, steps=1, time_step=orbit.time_step),
    )


def _check(state: Tensor, steps: int, k: int | None, discard: int) -> None:
    if steps < 1:
        raise ConfigError(f"steps={steps}", expected="at least one step")
    if discard < 0:
        raise ConfigError(f"discard={discard}", expected="no negative number of steps")
    if k is not None and isinstance(state, Tensor) and not 1 <= k <= state.numel():
        raise ConfigError(f"k={k}", expected=f"1 to {state.numel()}, the size of the state", remedy="k=None takes all")
