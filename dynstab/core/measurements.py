"""What was measured, in neutral words: no number here is called good or bad.

A step l maps state l to state l + 1 with Jacobian J_l (d_{l+1} x d_l). Where it is
residual, h_{l+1} = a h_l + f_l(h_l), its vector field has the Jacobian A = J_l - I.
"""

from __future__ import annotations

from dynstab.core.estimate import Estimate
from dynstab.core.flow_dynamics import FlowDynamics
from dynstab.core.frozen import Frozen
from dynstab.core.network_flow import NetworkFlow
from dynstab.core.structure import Structure
from dynstab.core.time_dynamics import TimeDynamics
from dynstab.core.training_dynamics import TrainingDynamics

_NONE = Estimate.unmeasured("not measured")


class StepMeasurement(Frozen):
    """One step. Every ratio is dimensionless.

    Attributes:
        rms_gain: chi = ||J||_F^2 / d_{l+1} (a squared gain; Schoenholz et al. 2017).
        relative_gain: chi * (rms(h_l) / rms(h_{l+1}))^2, blind to a rescaling of the states.
        largest_singular_value, smallest_singular_value: sigma_max; the smallest nonzero sigma.
        nullity: the dimension of the null space of J.
        logarithmic_norm: mu_2(J - I) = lambda_max((J + J^T)/2) - 1 (Soderlind 2006).
        spectral_radius: max |lambda(J)|. spectral_abscissa: max Re lambda(J - I).
        log_determinant: ln |det J|.
        henrici_departure: sqrt(||J||_F^2 - sum |lambda|^2) / ||J||_F.
        kreiss_constant: sup over |z| > 1 of (|z| - 1) ||(zI - J)^-1||.
        transient_growth: max over k of ||J^k||.
        branch_share: ||J - aI||_F^2 / ||J||_F^2, the share of the update in the gain (1 for a plain step).
        norm_growth: rms(h_{l+1}) / rms(h_l).
        update_ratio: rms(h_{l+1} - a h_l) / rms(h_l), residual steps only.
        dead_fraction: units of rectifiers that are zero on every input and position.
        kink_fraction: pre-activations that are exactly at a kink.
        singular_values: the leading ones, descending. eigenvalues of J as (real, imaginary).
    """

    index: int
    name: str
    rms_gain: Estimate = _NONE
    relative_gain: Estimate = _NONE
    largest_singular_value: Estimate = _NONE
    smallest_singular_value: Estimate = _NONE
    nullity: Estimate = _NONE
    logarithmic_norm: Estimate = _NONE
    spectral_radius: Estimate = _NONE
    spectral_abscissa: Estimate = _NONE
    log_determinant: Estimate = _NONE
    henrici_departure: Estimate = _NONE
    kreiss_constant: Estimate = _NONE
    transient_growth: Estimate = _NONE
    branch_share: Estimate = _NONE
    norm_growth: Estimate = _NONE
    update_ratio: Estimate = _NONE
    dead_fraction: Estimate = _NONE
    kink_fraction: Estimate = _NONE
    singular_values: tuple[Estimate, ...] = ()
    eigenvalues: tuple[tuple[float, float], ...] = ()


class StateMeasurement(Frozen):
    """One state, over all inputs.

    Attributes:
        rms, max_abs: of the entries. smallest_magnitude: the 1% quantile of |entry| over nonzero entries.
        nonfinite_fraction: entries that are NaN or infinite.
        effective_rank: exp(entropy of the normalised squared singular values) of the tokens x features
            matrix, over its largest possible value, mean over inputs, in (0, 1].
        token_similarity: mean pairwise cosine of the tokens, in [-1, 1].
    """

    index: int
    name: str
    rms: Estimate = _NONE
    max_abs: Estimate = _NONE
    smallest_magnitude: Estimate = _NONE
    nonfinite_fraction: Estimate = _NONE
    effective_rank: Estimate = _NONE
    token_similarity: Estimate = _NONE


class Lyapunov(Frozen):
    """Exponents of the whole trajectory, descending.

    Attributes:
        qr: (1/L) sum_l ln R_ii (Benettin et al. 1980). finite_time: (1/L) ln sigma_i(J_{0->L}).
        sum: (1/L) ln |det J_{0->L}| where every state has the same size.
        kaplan_yorke_dimension: for time dynamics only.
        expansion_sum: sum of the positive exponents (KS entropy over time).
    """

    unit: str = "nat/step"
    qr: tuple[Estimate, ...] = ()
    finite_time: tuple[Estimate, ...] = ()
    sum: Estimate = _NONE
    kaplan_yorke_dimension: Estimate = _NONE
    expansion_sum: Estimate = _NONE


class GradientFlow(Frozen):
    """The gradient at one state: delta_l = J_{l->L}^T delta_L.

    Attributes:
        gain: ||delta_l|| / ||delta_L||, root mean square over isotropic cotangents (or the loss's own).
        relative_gain: gain * rms(h_l) / rms(h_L).
        lower, upper: bounds of the gain over all cotangents at these inputs, labelled.
        product_upper: the product of the steps' largest singular values (rigorous where those are, loose).
    """

    state: int
    name: str = ""
    gain: Estimate = _NONE
    relative_gain: Estimate = _NONE
    lower: Estimate = _NONE
    upper: Estimate = _NONE
    product_upper: Estimate = _NONE


class GrowthFit(Frozen):
    """How ln(relative gradient gain) depends on depth: which of three laws fits best.

    Attributes:
        law: "exponential" (linear in depth), "square-root", "logarithmic", or "none".
        rate: nat per step of the linear fit. errors: residual sum of squares of each law.
    """

    law: str
    rate: float
    errors: dict[str, float]


class NetworkMeasurement(Frozen):
    """The whole network, J_{0->L}.

    Attributes:
        log_gradient_gain: G = ln of the relative gradient gain from the last state to the first, mean over
            inputs; its error is the standard error over inputs. median_log_gradient_gain: the median.
        raw_log_gradient_gain: the same without the rescaling by the states' norms.
        null_log_gain: what finite width alone gives at criticality: value and one standard deviation.
        log_signal_gain: ln rms(h_L) / rms(h_0).
        growth: the law that fits the profile of the gradient.
        refinement_order: p with error ~ h^p under refinement of the depth step, residual stacks only.
        depth_smoothness: L * mean ||theta_{l+1} - theta_l|| / ||theta||, theta the matrices of repeated blocks.
        causal: token blocks of the Jacobians are lower triangular. batch_coupled: inputs influence each other.
        underflow_depth: steps until gradients leave the training dtype's normal range at the measured rate.
    """

    largest_singular_values: tuple[Estimate, ...] = ()
    smallest_singular_value: Estimate = _NONE
    log_determinant: Estimate = _NONE
    log_gradient_gain: Estimate = _NONE
    median_log_gradient_gain: Estimate = _NONE
    raw_log_gradient_gain: Estimate = _NONE
    null_log_gain: Estimate = _NONE
    log_signal_gain: Estimate = _NONE
    growth: GrowthFit | None = None
    refinement_order: Estimate = _NONE
    depth_smoothness: Estimate = _NONE
    causal: bool | None = None
    batch_coupled: bool | None = None
    underflow_depth: Estimate = _NONE


class Measurements(Frozen):
    """All that was measured. `partial` names the measures that did not finish.

    Attributes:
        time, flow, training: of such a system only. structure: where there is something to preserve.
        network_flow: of residual networks.
    """

    steps: tuple[StepMeasurement, ...] = ()
    states: tuple[StateMeasurement, ...] = ()
    lyapunov: Lyapunov = Lyapunov()
    gradient_flow: tuple[GradientFlow, ...] = ()
    network: NetworkMeasurement = NetworkMeasurement()
    time: TimeDynamics | None = None
    flow: FlowDynamics | None = None
    training: TrainingDynamics | None = None
    structure: Structure | None = None
    network_flow: NetworkFlow | None = None
    partial: tuple[str, ...] = ()
