"""A residual network read as a sampled flow."""

from __future__ import annotations

from dynstab.core.estimate import Estimate
from dynstab.core.frozen import Frozen

_NONE = Estimate.unmeasured("not measured")


class IntegratorChange(Frozen):
    """What another integrator of the same field would change, the network being explicit Euler of step 1.

    Attributes:
        name: "midpoint", "RK4", "implicit midpoint", "half steps". evaluations: of the field, per step.
        state_change: ||x'_L - x_L|| / ||x_L - x_0||, over the run of blocks.
        gain_change: ln of the gain of a cotangent through the run, minus the network's own, in nat.
    """

    name: str
    evaluations: int
    state_change: Estimate = _NONE
    gain_change: Estimate = _NONE


class SubStep(Frozen):
    """Two neighbouring sub-steps A, then B, of one block: attention and MLP, say.

    Attributes:
        block: its number in the run. first, second: steps of the trajectory.
        commutator: ||B A - A B||_F / ||A + B||_F with the Jacobians A, B of their fields; 0 where the order
            does not matter, of the order of the step size for a splitting.
    """

    block: int
    first: int
    second: int
    commutator: Estimate = _NONE


class NetworkFlow(Frozen):
    """How far a stack of residual steps behaves as the samples of a differential equation.

    Attributes:
        implied_step: rms of ||J_l - a I||_F / sqrt(d) over the residual steps: the step size in units of the
            field's own time scale. Well below 1, a step samples a flow. depth_time: its sum over the steps.
        first, last: states between which the blocks repeat, None where nothing repeats. blocks, period: how many, and
            of how many residual sub-steps each.
        integrators: what another one would change, block by block; the field between two blocks is interpolated.
        sub_steps: of blocks of several sub-steps. order_change, parallel_change, strang_change: the relative change
            of the run's update where the sub-steps of every block act in the other order, all at once on the same
            state, or symmetrically (Strang: half, whole, half).
        hamiltonian: H_l = <p_{l+1}, f_l(h_l)>, mean over inputs, over |H| at the last block.
        hamiltonian_drift: max_l |H_l - H_last| / |H_last|, of blocks with tied weights; 0 in the limit of small steps.
    """

    implied_step: Estimate = _NONE
    depth_time: Estimate = _NONE
    first: int | None = None
    last: int | None = None
    blocks: int = 0
    period: int = 0
    integrators: tuple[IntegratorChange, ...] = ()
    sub_steps: tuple[SubStep, ...] = ()
    commutator: Estimate = _NONE
    order_change: Estimate = _NONE
    parallel_change: Estimate = _NONE
    strang_change: Estimate = _NONE
    hamiltonian: tuple[float, ...] = ()
    hamiltonian_drift: Estimate = _NONE
