"""What an analysis will cost, before it is made."""

from __future__ import annotations

from dynstab.core.config import Config
from dynstab.measures.effort import EFFORTS, Effort, plan_dense
from dynstab.systems.trajectory import Trajectory


def planned_products(trajectory: Trajectory, config: Config, *, spectral_inputs: int = 1) -> int:
    """Products with the whole propagator, all inputs counted, that `measure` plans at most.

    Args:
        spectral_inputs: of the reference that serves the spectral work where the Jacobians are too large to form.
    """
    steps, effort = trajectory.steps, EFFORTS[config.effort]
    if not steps:
        return 0
    if plan_dense([step.jacobian for step in steps], effort).whole:
        formed = sum(min(step.jacobian.shape) for step in steps)
        return -(-trajectory.samples * formed // len(steps))
    gains = max(effort.gain_probes, -(-effort.least_probes // trajectory.samples))
    return trajectory.samples * (effort.flow_probes + gains) + spectral_inputs * _spectral(effort, config.k)


def _spectral(effort: Effort, k: int) -> int:
    """One frame for the QR exponents, and the budgets of everything else."""
    each_step = effort.singular_products + effort.symmetric_products + effort.eigen_products
    return k + each_step + 2 * effort.network_products
