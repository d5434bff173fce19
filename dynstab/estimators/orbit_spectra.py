"""Exponents along an orbit, of one trajectory or of many that go on together, each with what becomes of it."""

from __future__ import annotations

import torch
from torch import Tensor

from dynstab.core.estimate import CONVERGED
from dynstab.estimators.dimension import expansion_sum, kaplan_yorke_dimension
from dynstab.estimators.frame_walk import LONGEST_INTERVAL, FrameWalk
from dynstab.estimators.orthogonal import HALF, random_frame
from dynstab.estimators.qr_result import QRExponents
from dynstab.estimators.recurrence import Recurrence
from dynstab.estimators.result import NON_FINITE
from dynstab.estimators.spectrum import LyapunovSpectrum, Propagator
from dynstab.estimators.step_doubling import step_error, too_large
from dynstab.estimators.stepped_orbit import SteppedOrbit

_MANY = 64  # tangents from which factorisations take as long as the steps
_REACH = 0.6  # for so many: the smallest R_ii is known to a relative 1e-4 then, and a third of the time is saved
_LONGEST_STRETCH = 10  # steps compiled into one
_EPS = 4  # by which rounding may move an exponent, in a step
_SETTLED = 3  # factorisations after which an interval means something


def orbit_spectra(
    orbit: SteppedOrbit,
    *,
    steps: int,
    k: int | None,
    discard: int,
    seed: int,
    memory_limit: int,
    compile: bool = False,
    longest: int = LONGEST_INTERVAL,
) -> list[LyapunovSpectrum]:
    """The spectrum of each trajectory of an orbit, per unit of its time.

    All begin with the same frame of tangents, and all are factorised when one of them needs it. A trajectory that
    diverges stands still at its start from then on and asks for nothing.

    Args:
        longest: steps between factorisations at most. The others are those of `lyapunov_spectra`.
    """
    size, state = orbit.layout.size, orbit.state
    # Over thousands of steps one is sure to be ill-conditioned: only rounding itself counts as a lost direction.
    floor = 2 * torch.finfo(state.dtype).eps
    orthogonal = min(LONGEST_INTERVAL, max(1, steps // 20))  # so that standard errors mean something
    longest, width = min(longest, orthogonal), min(k or size, size)
    reach = _REACH if width >= _MANY else FrameWalk.reach
    dtype = torch.float32 if state.dtype in HALF else state.dtype
    frame = random_frame(1, size, width, seed=seed, dtype=dtype, device=state.device).expand(orbit.samples, -1, -1)
    burn_in = FrameWalk(frame, keep_factors=False, floor=floor, longest=longest, reach=reach)
    journey = _Journey(orbit, compile)
    journey.advance(discard - discard // 2)
    journey.carry(burn_in, discard // 2)
    if journey.watch.going:
        burn_in.factorise()
    walk = FrameWalk(burn_in.frame, floor=floor, memory_limit=memory_limit, longest=longest, reach=reach)
    walk.orthogonal, walk.interval, walk.products = orthogonal, burn_in.interval, burn_in.products
    journey.carry(walk, steps)
    return _spectra(orbit, journey.watch, walk)


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
    """The spectrum along an orbit of one trajectory; arguments as for `orbit_spectra`."""
    options = {"steps": steps, "k": k, "discard": discard, "seed": seed, "memory_limit": memory_limit}
    (found,) = orbit_spectra(orbit, **options, compile=compile, longest=longest)
    return found


class _Journey:
    """An orbit, and who is still on it.

    Attributes:
        watch: what became of each trajectory so far.
    """

    def __init__(self, orbit: SteppedOrbit, compile: bool) -> None:
        self.watch = Recurrence(orbit.state, orbit.samples)
        self._orbit, self._compile = orbit, compile

    def advance(self, steps: int) -> None:
        """So many steps on, without tangents, while a trajectory is left."""
        while steps and self.watch.going:
            self._orbit.advance()
            self._look()
            steps -= 1

    def carry(self, walk: FrameWalk, steps: int) -> None:
        """So many steps on, with tangents, while a trajectory is left."""
        orbit = self._orbit
        walk.leave_out(self.watch.fallen)
        while steps and self.watch.going:
            if self._compile and len(walk.lengths) >= _SETTLED:
                self._compile_for(walk)
            count = self._stretch(walk, steps)
            walk.carry(orbit.linearised(count))
            # Who diverges is to be left out before it is factorised.
            if self._look():
                walk.leave_out(self.watch.fallen)
            walk.settle()
            steps -= count

    def _compile_for(self, walk: FrameWalk) -> None:
        """Once, and again where columns lose their independence sooner than they did."""
        orbit, unit = self._orbit, min(_LONGEST_STRETCH, walk.orthogonal or walk.longest)
        every = min(walk.interval, walk.longest)
        fresh = not walk.eliminated_steps + walk.pending_steps
        if orbit.stretch and not (fresh and (orbit.every or orbit.stretch) > every):
            return
        if orbit.every:  # by half, so that it is not done many times
            every = max(1, min(every, orbit.every // 2))
        if every <= unit:
            orbit.compile(unit // every * every, walk.width, every=every)
        else:
            orbit.compile(unit, walk.width)

    def _stretch(self, walk: FrameWalk, steps: int) -> int:
        """How many steps to take at once: as many as are compiled fit in before columns are to be orthonormal."""
        unit, every = self._orbit.stretch, self._orbit.every
        if not unit or unit > steps or every > walk.interval:
            return 1
        if (walk.whole if every else walk.room) < unit or (every and walk.pending_steps):
            walk.factorise()
        return min(walk.whole if every else walk.room, steps) // unit * unit or 1

    def _look(self) -> bool:
        """See where the orbit has come to; whether a trajectory has diverged, but not all have."""
        if self.watch.see_stretch(self._orbit.visited) or not self.watch.going:
            return False
        self._orbit.hold(self.watch.fallen)
        return True


def _spectra(orbit: SteppedOrbit, watch: Recurrence, walk: FrameWalk) -> list[LyapunovSpectrum]:
    fallen = watch.fallen.tolist()
    lost = [_diverged(orbit, watch, walk, row) if fell else None for row, fell in enumerate(fallen)]
    if not watch.going:
        return [each for each in lost if each is not None]
    found, doubt = walk.finish(), step_error(orbit, walk.frame)
    propagator = Propagator(
        found.factors if walk.keep_factors else (),
        rows=~watch.fallen,
        k=found.values.shape[1],
        steps=sum(found.lengths),
        time_step=orbit.time_step,
    )
    doubts = [None] * orbit.samples if doubt is None else doubt.cpu()
    return [each or _spectrum(orbit, watch, found, propagator, doubts[row], row) for row, each in enumerate(lost)]


def _spectrum(
    orbit: SteppedOrbit,
    watch: Recurrence,
    found: QRExponents,
    propagator: Propagator,
    doubt: Tensor | None,
    row: int,
) -> LyapunovSpectrum:
    full, rate = propagator.k == orbit.layout.size, 1 / orbit.time_step
    qr, errors, method = found.values[row].cpu() * rate, found.errors[row].cpu() * rate, found.method
    coarse = ""
    if doubt is not None:
        errors, method = errors + doubt, f"{method}, errors with those of the solver by step doubling"
        coarse = too_large(orbit, doubt, qr, propagator.steps * orbit.time_step)
    if found.factors:
        method += f"; finite-time ones by product QR of {len(found.factors)} factors"
        method += "" if full else " on the tangents carried (lower bounds)"
    else:
        method += "; R factors exceed the memory limit, not kept"
    broken = f"{NON_FINITE} tangents" if bool(qr.isnan().any()) else None
    became = watch.outcome(float(qr[0]), row, linearised=orbit.linearised)
    return LyapunovSpectrum(
        qr=qr,
        errors=errors,
        sum=float(qr.sum()) if full else torch.nan,
        kaplan_yorke_dimension=kaplan_yorke_dimension(
            qr, full=full, rounding=_EPS * torch.finfo(orbit.state.dtype).eps * rate
        ),
        entropy=expansion_sum(qr) if full or float(qr[-1]) <= 0 else torch.nan,
        state=watch.last(row).reshape(orbit.shape),
        steps=propagator.steps,
        outcome=broken or "; ".join(filter(None, (became, coarse))) or CONVERGED,
        products=found.products,
        method=method,
        unit=orbit.unit,
        propagator=propagator,
        row=row,
    )


def _diverged(orbit: SteppedOrbit, watch: Recurrence, walk: FrameWalk, row: int) -> LyapunovSpectrum:
    nothing, steps = torch.full((walk.width,), torch.nan, dtype=torch.float64), int(watch.diverged[row])
    return LyapunovSpectrum(
        qr=nothing,
        errors=nothing.clone(),
        sum=torch.nan,
        kaplan_yorke_dimension=torch.nan,
        entropy=torch.nan,
        state=watch.last(row).reshape(orbit.shape),
        steps=steps,
        outcome=watch.never_finite(row) or orbit.divergence(steps),
        products=walk.products,
        method="none",
        unit=orbit.unit,
        propagator=Propagator((), rows=watch.fallen, k=walk.width, steps=steps, time_step=orbit.time_step),
        row=row,
    )
