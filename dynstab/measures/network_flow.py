"""A residual network read as a flow: its implied step, other integrators, split sub-steps and costates."""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt

import torch
from torch import Tensor

from dynstab.core.estimate import Estimate, Label
from dynstab.core.network_flow import SubStep
from dynstab.linear.operator import DenseOperator, LinearOperator
from dynstab.measures.blocks import RepeatedBlocks, repeated_blocks
from dynstab.measures.costates import hamiltonian_drift
from dynstab.measures.effort import NEEDS_STANDARD
from dynstab.measures.integrators import IMPLICIT, STANDARD, integrator_changes
from dynstab.measures.refinement import depth_smoothness, tied
from dynstab.measures.spans import probe_columns
from dynstab.measures.splitting import commutators, splitting_changes
from dynstab.measures.survey import Finding, Survey

_DRAW = 12
_PROBES = 4
_NOTHING_REPEATS = Estimate.unmeasured("needs four residual blocks that repeat")


def measure_network_flow(survey: Survey) -> Iterator[Finding]:
    """Of residual networks over depth; what needs repeated blocks says so where there are none."""
    residual = [step for step in survey.trajectory.steps if step.kind == "residual"]
    yield Finding("network_flow", 0, _implied_step(survey, [step.index for step in residual]))
    blocks = repeated_blocks(survey.spectral)
    if blocks is None:
        names = ("commutator", "order_change", "parallel_change", "strang_change", "hamiltonian_drift")
        yield Finding("network_flow", 0, dict.fromkeys(names, _NOTHING_REPEATS))
        return
    yield Finding(
        "network_flow",
        0,
        {"first": blocks.first.index, "last": blocks.last.index, "blocks": blocks.count, "period": blocks.period},
    )
    yield Finding("network_flow", 0, _costate_fields(survey))
    if survey.config.effort == "quick":
        names = ("commutator", "order_change", "parallel_change", "strang_change")
        yield Finding("network_flow", 0, dict.fromkeys(names, Estimate.unmeasured(NEEDS_STANDARD)))
        return
    schemes = STANDARD | IMPLICIT if survey.config.effort == "thorough" else STANDARD
    cotangents = probe_columns(blocks.steps[-1].jacobian, 1, survey.seed(_DRAW))
    yield Finding("network_flow", 0, {"integrators": integrator_changes(blocks, schemes, cotangents)})
    yield Finding("network_flow", 0, _splitting_fields(survey, blocks))


def _implied_step(survey: Survey, residual: list[int]) -> dict[str, Estimate]:
    """sqrt(||J - a I||_F^2 / d) of each residual step, from what the measure of gains found."""
    if any(len(survey.trajectory.states[index].value) > 1 for index in residual):
        # Such a state may list its tensors in another order after a step: J - aI is then not the update.
        missing = Estimate.unmeasured("the states are several tensors")
        return {"implied_step": missing, "depth_time": missing}
    rates = []
    for index in residual:
        share, gain = (survey.estimate("step", index, name) for name in ("branch_share", "rms_gain"))
        if share is None or gain is None or share.value is None or gain.value is None:
            missing = Estimate.unmeasured(f"the gain of step {index} was not measured")
            return {"implied_step": missing, "depth_time": missing}
        product = max(0.0, share.value * gain.value)
        relative = sum((part.error or 0.0) / part.value for part in (share, gain) if part.value) / 2
        rates.append((sqrt(product), sqrt(product) * relative))
    count = len(rates)
    size = sqrt(sum(rate * rate for rate, _ in rates) / count)
    error = sum(error for _, error in rates)
    method = f"rms of ||J - aI||_F / sqrt(d) over {count} residual steps"
    implied = Estimate(value=size, error=error / count, method=method, label=Label.ESTIMATE)
    total = Estimate(value=sum(rate for rate, _ in rates), error=error, method=f"sum over {count} steps")
    return {"implied_step": implied, "depth_time": total}


def _costate_fields(survey: Survey) -> dict[str, object]:
    """On all inputs: one product a step."""
    blocks = repeated_blocks(survey.trajectory)
    if blocks is None:  # a single input can look simpler than many
        return {"hamiltonian_drift": _NOTHING_REPEATS}
    smoothness = depth_smoothness(blocks)
    if not smoothness.measured:
        return {"hamiltonian_drift": Estimate.unmeasured(smoothness.outcome)}
    if not tied(blocks):
        return {"hamiltonian_drift": Estimate.unmeasured("the weights are not tied: H is not conserved by the flow")}
    return hamiltonian_drift(blocks, _loss_cotangent(survey, blocks))


def _loss_cotangent(survey: Survey, blocks: RepeatedBlocks) -> Tensor | None:
    """The loss's cotangent pulled back to the end of the run, None where no loss is given."""
    if survey.cotangent is None or len(blocks.first.value) > 1:
        return None
    steps = survey.trajectory.steps
    columns = survey.trajectory.states[-1].layout.flatten(tuple(tensor[None] for tensor in survey.cotangent))
    for step in reversed(steps[blocks.last.index :]):
        columns = step.jacobian.rmatmat(columns)
    return columns


def _splitting_fields(survey: Survey, blocks: RepeatedBlocks) -> dict[str, object]:
    if blocks.period == 1:
        single = Estimate.unmeasured("a block is a single residual step")
        return dict.fromkeys(("commutator", "order_change", "parallel_change", "strang_change"), single)

    def operator(position: int) -> LinearOperator:
        step = blocks.steps[position]
        matrix = survey.spectral_matrices[step.index]
        whole = matrix is not None and len(matrix) == step.jacobian.samples
        return blocks.operator(position, DenseOperator(matrix) if matrix is not None and whole else None)

    def columns(position: int) -> Tensor:
        return probe_columns(blocks.steps[position].jacobian, _PROBES, survey.seed(_DRAW, position, 1))

    found = tuple(commutators(blocks, operator, columns))
    return {"sub_steps": found, "commutator": _mean(found), **splitting_changes(blocks)}


def _mean(found: tuple[SubStep, ...]) -> Estimate:
    """Over all pairs of all blocks."""
    values = torch.tensor([each.commutator.value for each in found], dtype=torch.float64)
    errors = torch.tensor([each.commutator.error or 0.0 for each in found], dtype=torch.float64)
    first = found[0].commutator
    return first.model_copy(
        update={
            "value": float(values.mean()),
            "error": float(errors.norm()) / len(found),
            "method": f"mean over {len(found)} pairs of sub-steps, {first.method}",
            "products": first.products * len(found),
            "spread": None,
        }
    )
