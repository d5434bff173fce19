"""What an analysis will cost, before it is made."""

from __future__ import annotations

import time

import torch

from dynstab.core.config import Config
from dynstab.core.inspection import Cost
from dynstab.linear.operator import JacobianOperator
from dynstab.linear.tape_operator import on_tape
from dynstab.measures.effort import EFFORTS, Effort, plan_dense
from dynstab.systems.trajectory import Trajectory

_ROUNDS = 3  # the first linearises; the fastest counts


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


def estimate_cost(trajectory: Trajectory, config: Config) -> Cost:
    """One tangent of all inputs through all steps, timed, times the products that the effort plans."""
    operators = [step.jacobian for step in trajectory.steps if isinstance(step.jacobian, JacobianOperator)]
    tangents = tuple(torch.randn_like(tensor).unsqueeze(0) for tensor in trajectory.states[0].value)
    each = min(_timed(operators, tangents) for _ in range(_ROUNDS)) / trajectory.samples
    products = planned_products(trajectory, config)
    return Cost(
        products=products,
        seconds_per_product=each,
        seconds=each * products,
        bytes_per_tangent=max((tape.bytes_per_tangent for tape in map(on_tape, operators) if tape), default=0),
        recorded_bytes=sum(tensor.nbytes for state in trajectory.states for tensor in state.value),
    )


def _timed(operators: list[JacobianOperator], tangents: tuple[torch.Tensor, ...]) -> float:
    started = time.perf_counter()
    for operator in operators:
        tangents = operator.push_tensors(tangents)
    return time.perf_counter() - started
