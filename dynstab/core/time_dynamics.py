"""What only a recurrence has: attractors, memory, covariant directions, gates."""

from __future__ import annotations

from dynstab.core.estimate import Estimate
from dynstab.core.frozen import Frozen

ON_A_CYCLE = "settled on a cycle of period"
"""How the outcome of states begins that return after some steps, as their neighbours do."""

_NONE = Estimate.unmeasured("not measured")


class GateUse(Frozen):
    """How often a gate is shut or open, over inputs, units and the steps looked at.

    Attributes:
        closed: share of its values below 0.05. open: share above 0.95. mean: of its values.
    """

    name: str
    closed: Estimate = _NONE
    open: Estimate = _NONE
    mean: Estimate = _NONE


class FixedPoint(Frozen):
    """A state that the step leaves where it is.

    Attributes:
        state: where it was found. movement: ||step(h) - h|| / ||h||, the largest over inputs.
        spectral_radius: of the step's Jacobian there, the largest over inputs: below 1 it attracts.
        contraction: the rate at which the states of the slowest input came to it, in nat per step; ln of the
            spectral radius in the end.
        eigenvalues: of the first input, as (real, imaginary), outermost first.
    """

    state: str
    movement: Estimate = _NONE
    spectral_radius: Estimate = _NONE
    contraction: Estimate = _NONE
    eigenvalues: tuple[tuple[float, float], ...] = ()


class TimeDynamics(Frozen):
    """A recurrence, state after state, one step a unit of time.

    Attributes:
        steps: measured, after `discarded` ones in which state and tangents settle.
        driven: something else drives it at every step; False for a map of the state alone.
        outcome: what became of the states ("collapsed to a fixed point", "grows without bound").
        size_growth: the rate at which the states' norms grow, from one half of the steps to the other: neighbours
            that part no faster are no chaos.
        running_steps, running: the leading exponents as they settle: after so many steps, nat per step each.
        half_life: steps in which the gradient halves on its way back, from its mean rate along the sequence.
        reach: steps back after which it stays below a twentieth; a lower bound where the sequence is too short.
        sequence: how many steps back there are.
        memory_lags, memory: ln of the gradient's gain that many steps back, mean over inputs.
        angles: between covariant vector i and i + 1, mean over time and inputs, radians.
        splitting: expanding directions, counted from the leading one, that `least_angle` separates from the rest.
        least_angle: the smallest one met between these two spaces. mean_angle: over time and inputs.
        angle_shares: how the angle is distributed over equal parts of [0, pi/2].
        fixed_point: where a map without drive rests. gates: of the steps looked at.
    """

    steps: int = 0
    discarded: int = 0
    driven: bool = True
    outcome: str = ""
    size_growth: Estimate = _NONE
    running_steps: tuple[int, ...] = ()
    running: tuple[tuple[float, ...], ...] = ()
    half_life: Estimate = _NONE
    reach: Estimate = _NONE
    sequence: int = 0
    memory_lags: tuple[int, ...] = ()
    memory: tuple[float, ...] = ()
    angles: tuple[Estimate, ...] = ()
    splitting: int = 0
    least_angle: Estimate = _NONE
    mean_angle: Estimate = _NONE
    angle_shares: tuple[float, ...] = ()
    fixed_point: FixedPoint | None = None
    gates: tuple[GateUse, ...] = ()
