"""The part of a vector field's exponents that belongs to the solver: what steps of half the length change.

References:
    Hairer, Norsett & Wanner (1993), Solving Ordinary Differential Equations I, section II.4.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dynstab.estimators.flow_orbit import FlowOrbit
from dynstab.estimators.frame_walk import FrameWalk
from dynstab.estimators.stepped_orbit import SteppedOrbit

_STEPS = 10
_SHARE = 0.05  # of the largest exponent, from which dt is called too large


def step_error(orbit: SteppedOrbit, frame: Tensor) -> Tensor | None:
    """How far the exponents are from those of the field, as the next ten steps of an orbit have it.

    |lambda(h) - lambda(h / 2)| 2^p / (2^p - 1) for a solver of order p, from the same state and frame. An adaptive
    solver is held at its present step: where its stability sets that step, its error control sees nothing of what
    becomes of fast decays. None for maps.

    Args:
        frame: orthonormal tangents (samples, size, k) at the present state; the orbit goes on.

    Returns:
        (samples, k), nat per unit of time.
    """
    if not isinstance(orbit, FlowOrbit):
        return None
    half = orbit.in_steps(0.5)
    whole = orbit.in_steps(1.0) if orbit.adaptive else orbit
    change = (_growth(whole, frame, _STEPS) - _growth(half, frame, 2 * _STEPS)).abs()
    return change / (1 - 0.5**orbit.order)


def too_large(orbit: SteppedOrbit, errors: Tensor, exponents: Tensor, time: float) -> str:
    """In words, where steps of half the length would give other exponents (k,) over that time; empty else."""
    error, scale = float(errors.max()), max(float(exponents.abs().max()), 1 / time)
    if error <= _SHARE * scale:
        return ""
    adaptive = isinstance(orbit, FlowOrbit) and orbit.adaptive
    what = "the field is stiff: half of the solver's step" if adaptive else "dt is too large: half of it"
    return f"{what} changes exponents by {error:.2g} nat/time"


def _growth(orbit: FlowOrbit, frame: Tensor, steps: int) -> Tensor:
    walk = FrameWalk(frame, longest=1, keep_factors=False)
    for _ in range(steps):
        walk.push(orbit.linearised())
    return torch.as_tensor(walk.finish().values) / orbit.time_step
