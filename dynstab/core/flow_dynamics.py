"""What only a flow has: a vector field, a solver, its steps and its errors."""

from __future__ import annotations

from dynstab.core.estimate import Estimate
from dynstab.core.frozen import Frozen

_NONE = Estimate.unmeasured("not measured")


class SolverStep(Frozen):
    """One step that the solver accepted, with the field x' = f(t, x) and its Jacobian A where it starts.

    Attributes:
        time, size: t and h; h is negative where the solver goes back in time. rejected: attempts before it.
        local_error: root mean square of the step's error estimate over that of the state after it.
        tolerance_ratio: that error over the tolerance, as the solver's own control takes it; adaptive solvers only.
        logarithmic_norm: mu_2(A) = lambda_max((A + A^T)/2), per unit time (Soderlind 2006).
        abscissa: max Re lambda(A), per unit time.
        fastest_decay, slowest_decay: of the modes that decay, -Re lambda in the direction of integration.
        amplification: max |R(h lambda)| with the solver's stability function.
        neutral_amplification: the same over the modes that do not grow, Re (h lambda) <= 0: above 1 the solver
            makes grow what the field does not.
        trace: of A, per unit time: the rate at which the flow expands volumes.
        spectrum: h lambda as (real, imaginary), of the first input.
    """

    index: int
    time: float
    size: float
    rejected: int = 0
    local_error: Estimate = _NONE
    tolerance_ratio: Estimate = _NONE
    logarithmic_norm: Estimate = _NONE
    abscissa: Estimate = _NONE
    fastest_decay: Estimate = _NONE
    slowest_decay: Estimate = _NONE
    amplification: Estimate = _NONE
    neutral_amplification: Estimate = _NONE
    trace: Estimate = _NONE
    spectrum: tuple[tuple[float, float], ...] = ()


class FlowDynamics(Frozen):
    """A differential equation along the steps that its solver accepted.

    Attributes:
        solver, order: the method. adaptive: whether it chooses its steps. source: whose call it is.
        start, end: the interval asked for. reached: where the solver stopped. outcome: "converged", or why it stopped.
        rtol, atol: of an adaptive solver; the largest where they differ from entry to entry.
        accepted, rejected, evaluations: steps, and calls of the field.
        adjoint: the model trains by the adjoint equation.
        stability_polynomial: coefficients of R(z), of z^0 first; empty where the method has none.
        real_limit: the decay per step up to which the method is stable.
        steps: those accepted.
        exponents: finite-time exponents per unit time, descending. log_norm_bound: the integral of mu_2 along the
            solution, which bounds ln ||flow map||.
        stiffness_ratio: the largest ratio of fastest to slowest decay. stiffness: the integral of the fastest decay.
        solution_error: against a solution with much smaller errors, relative to its norm.
        adjoint_gap: |adjoint's gradient - gradient through the solver| / |the latter|, of a random linear form of the
            last state, in the parameters and the first state together.
        reversal_error: |x_0 recovered by running back from the last state - x_0| / |x_0|.
        trace_integral: of tr A along the solution, ln |det| of the flow (a normalising flow's change of log-density).
        determinant_gap: how far that is from ln |det| of the solver's own map.
    """

    solver: str
    order: int
    adaptive: bool
    source: str
    start: float
    end: float
    reached: float
    outcome: str
    accepted: int
    rejected: int
    evaluations: int
    rtol: float | None = None
    atol: float | None = None
    adjoint: bool = False
    stability_polynomial: tuple[float, ...] = ()
    real_limit: float | None = None
    steps: tuple[SolverStep, ...] = ()
    exponents: tuple[Estimate, ...] = ()
    log_norm_bound: Estimate = _NONE
    stiffness_ratio: Estimate = _NONE
    stiffness: Estimate = _NONE
    solution_error: Estimate = _NONE
    adjoint_gap: Estimate = _NONE
    reversal_error: Estimate = _NONE
    trace_integral: Estimate = _NONE
    determinant_gap: Estimate = _NONE
