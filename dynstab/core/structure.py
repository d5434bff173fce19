"""Structure that a network may keep or lose: symplecticity, volume, reversibility, a Lyapunov function."""

from __future__ import annotations

from typing import Literal

from dynstab.core.estimate import Estimate
from dynstab.core.frozen import Frozen

_NONE = Estimate.unmeasured("not measured")

PropertyName = Literal[
    "symplectic", "Hamiltonian field", "antisymmetric field", "reversible", "coupling", "volume-preserving"
]


class StepDefect(Frozen):
    """By how much the map from state `source` to state `target` misses a property; 0 is perfect.

    Attributes:
        steps: those between the two states. kept: the defect is no larger than rounding makes it.
    """

    source: int
    target: int
    defect: Estimate
    kept: bool

    @property
    def steps(self) -> tuple[int, ...]:
        return tuple(range(self.source, self.target))


class Property(Frozen):
    """A structure that most steps keep to rounding, so that the network means to have it.

    Attributes:
        name: symplectic: ||J^T W J - W||_F / ||W||_F, W = [[0, I], [-I, 0]] on the two halves of the state.
            Hamiltonian field: the share of A for which W A is not symmetric, A the Jacobian of a flow's own field,
                else J - I.
            antisymmetric field: the share of the symmetric part in A, or in D A with a positive diagonal D,
                but for a multiple of the identity (a damping).
            reversible: the relative miss of the Jacobian of an additive coupling, invertible with det = 1.
            coupling: the larger of two relative misses of y_K = D x_P + b, y_U = exp(s(x_P)) x_Q + t(x_P), for any
                choice and order of the entries: what its Jacobian holds besides, and by how much it is not linear
                in x_Q over a finite move.
            volume-preserving: |ln |det J||, in nat.
        steps: one entry for each map that was looked at.
    """

    name: PropertyName
    steps: tuple[StepDefect, ...]

    @property
    def kept(self) -> int:
        return sum(step.kept for step in self.steps)

    @property
    def lost(self) -> tuple[StepDefect, ...]:
        return tuple(step for step in self.steps if not step.kept)


class Couplings(Frozen):
    """The steps that are couplings: one part of the state is passed on and sets what happens to the other.

    Attributes:
        affine: how many scale the other part by what depends on the first one (RealNVP, Glow).
        additive: how many only shift it (NICE), a constant factor apart.
        other: how many are neither, though their Jacobian has the same zeros: an elementwise map, alone or in front
            of a coupling (a logit), or a spline of the other part.
        log_determinant: ln |det J| of all of these together, the sum of s, from the scales that were read off.
        determinant_gap: the largest distance of one step's own from the decomposed Jacobian's, where there is one.
    """

    affine: int = 0
    additive: int = 0
    other: int = 0
    log_determinant: Estimate = _NONE
    determinant_gap: Estimate = _NONE


class LyapunovDecrease(Frozen):
    """V(x) = (x - x*)^T P (x - x*) along a trajectory that settles at its last state x*.

    Attributes:
        spectral_radius: of the step at x*; below 1 it is stable and P solves J^T P J - P = -I.
        violations: the share of the steps, over all inputs, in which V grows.
        largest_growth: the largest V(x_{l+1}) / V(x_l).
        metric_gain: sigma_max of the step at x* in the norm of P, below 1.
        condition: of P^(1/2): how far the metric of P is from the Euclidean one.
        values: ln V at each state, mean over inputs, for a chart; states at x* to rounding are left out.
    """

    spectral_radius: Estimate = _NONE
    violations: Estimate = _NONE
    largest_growth: Estimate = _NONE
    metric_gain: Estimate = _NONE
    condition: Estimate = _NONE
    values: tuple[float, ...] = ()


class Structure(Frozen):
    """What the steps preserve, and by how much they miss it.

    Attributes:
        properties: those that most steps keep; the others are nothing that the network means to have.
        pairing: max_i |Lambda_i + Lambda_{n+1-i}| of the finite-time exponents, 0 for a symplectic chain.
        reconstruction: ||x - x'|| / ||x|| at the first state of the longest unbroken run of couplings, run back from
            its last; `method` counts them.
        couplings: what is known of the couplings of a normalising flow, None where the network is none.
        lyapunov: of a trajectory over time that settles at a fixed point.
    """

    properties: tuple[Property, ...] = ()
    pairing: Estimate = _NONE
    reconstruction: Estimate = _NONE
    couplings: Couplings | None = None
    lyapunov: LyapunovDecrease | None = None

    def named(self, name: PropertyName) -> Property | None:
        """The property of that name, None where the network does not mean to have it."""
        return next((found for found in self.properties if found.name == name), None)
