"""What an analysis will cost, before it is made."""

from __future__ import annotations

import time

import torch

from dynstab.core.config import Config
from dynstab.core.inspection import Cost
from dynstab.linear.operator import JacobianOperator
from dynstab.linear.tape_operator import on_tape
from dynstab.measures.effort import Effort, plan_frame
from dynstab.measures.memory import LONGEST_MEMORY
from dynstab.measures.survey import Survey
from dynstab.systems.trajectory import Step, Trajectory

_ROUNDS = 3  # the first linearises; the fastest counts


def planned_products(trajectory: Trajectory, config: Config, *, spectral_inputs: int = 1) -> int:
    """Products with the Jacobians of single steps, all inputs counted, that `measure` plans: within a factor of two.

    Args:
        spectral_inputs: of the reference that serves the spectral work where the Jacobians are too large to form.
    """
    survey = Survey(trajectory=trajectory, spectral=trajectory, config=config)
    steps, effort = trajectory.steps, survey.effort
    if not steps:
        return 0
    along = _along(trajectory.whole or trajectory, effort, config.k) if trajectory.kind == "time" else 0
    if survey.plan.whole:
        return along + trajectory.samples * sum(min(step.jacobian.shape) for step in steps)
    gains = max(effort.gain_probes, -(-effort.least_probes // trajectory.samples))
    # One frame for the QR exponents, and the budgets of everything else.
    network = len(steps) * (config.k + 2 * effort.network_products)
    spectra = sum(_spectral(survey, step) for step in steps)
    sweeps = len(steps) * (effort.flow_probes + gains)
    return along + trajectory.samples * sweeps + spectral_inputs * (network + spectra)


def _spectral(survey: Survey, step: Step) -> int:
    effort = survey.effort
    if not survey.decomposes(step.index):
        return effort.singular_products
    symmetric = effort.symmetric_products if step.kind == "residual" else 0
    return effort.singular_products + effort.eigen_products + symmetric


def _along(whole: Trajectory, effort: Effort, k: int) -> int:
    """Over all of a recurrence's sequence: the frame of the exponents forth, and the probes of the memory back."""
    steps = len(whole.steps)
    frame = plan_frame([step.jacobian for step in whole.steps], effort, k)
    return whole.samples * (steps * frame + min(steps, LONGEST_MEMORY) * effort.flow_probes)


def estimate_cost(trajectory: Trajectory, config: Config) -> Cost:
    """One tangent of all inputs through all steps, timed, times the products that the effort plans."""
    operators = [step.jacobian for step in trajectory.steps if isinstance(step.jacobian, JacobianOperator)]
    tangents = tuple(torch.randn_like(tensor).unsqueeze(0) for tensor in trajectory.states[0].value)
    count = max(1, len(operators)) * trajectory.samples
    each = min(_timed(operators, tangents) for _ in range(_ROUNDS)) / count
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
