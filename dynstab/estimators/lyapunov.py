"""The public `lyapunov_spectrum`: exponents along the orbit of a map or of a vector field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dynstab.core.errors import ConfigError
from dynstab.core.estimate import CONVERGED
from dynstab.estimators.dimension import expansion_sum, kaplan_yorke_dimension
from dynstab.estimators.flow_orbit import FlowOrbit, VectorField
from dynstab.estimators.orbit import MapOrbit, Orbit, PackedStep, Recurrence
from dynstab.estimators.orthogonal import HALF, random_frame
from dynstab.estimators.product_qr import log_singular_values
from dynstab.estimators.qr import LONGEST_INTERVAL, FrameWalk, QRExponents

_FINITE_TIME_ACCURACY = 1e-4  # per step, at the worst


@dataclass(frozen=True, kw_only=True, eq=False)
class LyapunovSpectrum:
    """Exponents of an orbit, descending, in `unit`.

    Attributes:
        qr: (k,) float64, (1/L) sum ln R_ii (Benettin et al. 1980).
        finite_time: (k,) float64, (1/L) ln sigma_i of the propagator over the same steps; for fewer than all
            exponents, of the propagator on the k tangents carried: lower bounds. To 1e-4 nat a step at the
            worst, inside a wide spectrum. NaN where not kept.
        errors: (k,) standard errors of `qr` by batch means; NaN for a single factorisation.
        sum: of all exponents, (1/L) ln |det|; NaN where fewer were asked for.
        kaplan_yorke_dimension: NaN where it lies beyond the exponents asked for.
        entropy: the sum of the positive exponents.
        state: the last one. steps: how many were measured.
        outcome: "converged", or what became of the orbit. Where it diverged, all numbers are NaN.
        products: Jacobian-vector products spent.
    """

    qr: Tensor
    finite_time: Tensor
    errors: Tensor
    sum: float
    kaplan_yorke_dimension: float
    entropy: float
    state: Any
    steps: int
    outcome: str
    products: int
    method: str
    unit: str = "nat/step"


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
) -> LyapunovSpectrum:
    """Lyapunov exponents of the map state -> step(state), or with `time` of the vector field step(t, state).

    Args:
        step: a pure function or an nn.Module. state: of any shape and floating-point dtype, or a tuple of such
            tensors, as an LSTM cell has; the step then takes and gives the tuple.
        steps: measured. discard: taken before, the first half without tangents (the transient of the
            state), the second half with them (the tangents turn into their directions).
        k: how many exponents; None is all of them. seed: of the first tangents.
        memory_limit: bytes of R factors kept for `finite_time`.
        time, dt, method: of a vector field, see `flow_spectrum`; `discard` is then a time, `steps` is not used.

    Raises:
        InputError: the state is not a floating-point tensor or the step does not map it to its like.
        ConfigError: `steps`, `k` or `discard` cannot be served.

    References:
        Benettin et al. (1980), Meccanica 15; Geist, Parlitz & Lauterborn (1990), Prog. Theor. Phys. 83.
    """
    if time is not None:
        return flow_spectrum(
            step, state, time=time, dt=dt, method=method, k=k, discard=discard, seed=seed, memory_limit=memory_limit
        )
    discard = int(discard)
    if isinstance(state, (tuple, list)):
        packed = PackedStep(step, state)
        found = lyapunov_spectrum(
            packed, packed.start, steps=steps, k=k, discard=discard, seed=seed, memory_limit=memory_limit
        )
        return replace(found, state=packed.unpack(found.state))
    _check(state, steps, k, discard)
    orbit = MapOrbit(step, state)
    return orbit_spectrum(orbit, steps=steps, k=k, discard=discard, seed=seed, memory_limit=memory_limit)


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
) -> LyapunovSpectrum:
    """Lyapunov exponents of the vector field x' = field(t, x), in nat per unit of time.

    The exponents are those of the solver's map: they differ from the field's by its error, O(dt^4) for rk4.

    Args:
        field: a pure function or an nn.Module of a time without dimensions and a state. state: at t = 0, of any
            shape and floating-point dtype.
        time: measured, rounded to whole steps. dt: length of a step. discard: time taken before, the first half
            without tangents.
        method: rk4, dopri5 (as many steps inside dt as its error control wants), midpoint or euler.
        k, seed, memory_limit: as for `lyapunov_spectrum`.

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
    found = orbit_spectrum(orbit, steps=steps, k=k, discard=transient, seed=seed, memory_limit=memory_limit)
    if not found.outcome.startswith("diverged"):
        return found
    return replace(found, outcome=orbit.failure or f"blew up at t = {orbit.time:.6g}")


def orbit_spectrum(
    orbit: Orbit, *, steps: int, k: int | None, discard: int, seed: int, memory_limit: int
) -> LyapunovSpectrum:
    """The spectrum along any orbit, per unit of its time."""
    watch, size = Recurrence(orbit.state), orbit.state.numel()
    dtype = torch.float32 if orbit.state.dtype in HALF else orbit.state.dtype
    frame = random_frame(1, size, min(k or size, size), seed=seed, dtype=dtype, device=orbit.state.device)
    for _ in range(discard - discard // 2):
        orbit.advance()
        if not watch.see(orbit.state):
            return _diverged(orbit, watch, frame.shape[2], 0)
    # Over thousands of steps one is sure to be ill-conditioned: only rounding itself counts as a lost direction.
    floor = 2 * torch.finfo(orbit.state.dtype).eps
    burn_in = FrameWalk(frame, keep_factors=False, floor=floor)
    if not _walk(orbit, watch, burn_in, discard // 2):
        return _diverged(orbit, watch, frame.shape[2], burn_in.products)
    burn_in.factorise()
    longest = min(LONGEST_INTERVAL, max(1, steps // 20))
    walk = FrameWalk(burn_in.frame, floor=floor, memory_limit=memory_limit, longest=longest)
    walk.interval = min(walk.longest, burn_in.interval)
    if not _walk(orbit, watch, walk, steps):
        return _diverged(orbit, watch, frame.shape[2], burn_in.products + walk.products)
    return _spectrum(orbit, watch, walk.finish(), walk.keep_factors, burn_in.products)


def _walk(orbit: Orbit, watch: Recurrence, walk: FrameWalk, steps: int) -> bool:
    for _ in range(steps):
        walk.push(orbit.linearised())
        if not watch.see(orbit.state):
            return False
    return True


def _spectrum(
    orbit: Orbit, watch: Recurrence, found: QRExponents, kept: bool, burn_in_products: int
) -> LyapunovSpectrum:
    steps, (k,) = sum(found.lengths), found.values.shape[1:]
    full, rate = k == orbit.state.numel(), 1 / orbit.time_step
    qr, method = found.values[0].cpu() * rate, found.method
    if kept:
        # Close pairs inside a wide spectrum take many passes for digits that the orbit's fluctuations drown.
        logs = log_singular_values([factor.cpu() for factor in found.factors], tolerance=_FINITE_TIME_ACCURACY * steps)
        finite_time = torch.nn.functional.pad(logs.values[0], (0, k - logs.values.shape[1]), value=-torch.inf)
        finite_time, method = finite_time * rate / steps, f"{method}; {logs.method}"
        method += "" if full else " on the tangents carried (lower bounds)"
    else:
        finite_time, method = torch.full_like(qr, torch.nan), f"{method}; R factors exceed the memory limit, not kept"
    broken = None if found.converged else found.outcome
    return LyapunovSpectrum(
        qr=qr,
        finite_time=finite_time,
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
    )


def _diverged(orbit: Orbit, watch: Recurrence, k: int, products: int) -> LyapunovSpectrum:
    nothing = torch.full((k,), torch.nan, dtype=torch.float64)
    return LyapunovSpectrum(
        qr=nothing,
        finite_time=nothing.clone(),
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
    )


def _check(state: Tensor, steps: int, k: int | None, discard: int) -> None:
    if steps < 1:
        raise ConfigError(f"steps={steps}", expected="at least one step")
    if discard < 0:
        raise ConfigError(f"discard={discard}", expected="no negative number of steps")
    if k is not None and isinstance(state, Tensor) and not 1 <= k <= state.numel():
        raise ConfigError(f"k={k}", expected=f"1 to {state.numel()}, the size of the state", remedy="k=None takes all")
