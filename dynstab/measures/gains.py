"""The mean-field gain of every step, chi = ||J||_F^2 / d_{l+1}, and what the update contributes to it.

E ||J^T v||^2 / ||v||^2 = chi for isotropic cotangents v: exact where the Jacobian is formed, from random
probes elsewhere. A few fresh probes an input suffice, since inputs average too; the
error says what is left.

References:
    Schoenholz et al. (2017), Deep Information Propagation; Hutchinson (1990).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from dynstab.core.estimate import Label
from dynstab.estimators.result import Result, rounding
from dynstab.measures.aggregate import standard_error, summarise
from dynstab.measures.probes import gaussian_blocks, pull, squared_norms
from dynstab.measures.survey import Finding, Survey
from dynstab.systems.trajectory import Step

_DRAW = 1


def measure_gains(survey: Survey) -> Iterator[Finding]:
    """rms_gain, relative_gain and branch_share of every step."""
    trajectory = survey.trajectory
    for step in trajectory.steps:
        matrix = survey.matrices[step.index]
        gain, share = _from_probes(survey, step) if matrix is None else _from_matrix(step, matrix)
        scale = (survey.sizes[:, step.index] / survey.sizes[:, step.index + 1]).square()[:, None]
        relative = gain.with_values(gain.values * scale, gain.errors * scale)
        fields = {
            "rms_gain": summarise(gain),
            "relative_gain": summarise(relative),
            "branch_share": summarise(share),
        }
        yield Finding("step", step.index, fields)


def _coefficient(step: Step) -> float | None:
    """The a of h_{l+1} = a h_l + f(h_l), None where the whole step is the update."""
    square = step.jacobian.rows == step.jacobian.cols
    return step.residual_coefficient if step.kind == "residual" and square else None


def _whole(samples: int) -> Result:
    return Result(
        values=torch.ones(samples, 1, dtype=torch.float64),
        errors=torch.zeros(samples, 1, dtype=torch.float64),
        label=Label.EXACT,
        method="no residual: the step is the update",
    )


def _from_matrix(step: Step, matrix: Tensor) -> tuple[Result, Result]:
    matrix = matrix.double()
    samples, rows, cols = matrix.shape
    squared = matrix.square().sum(dim=(1, 2))[:, None]
    eps = rounding(step.jacobian.dtype, rows, cols)
    exact = partial(Result, label=Label.EXACT, method="dense Frobenius norm", products=min(rows, cols))
    gain = exact(values=squared / rows, errors=2 * eps * squared / rows)
    coefficient = _coefficient(step)
    if coefficient is None:
        return gain, _whole(samples)
    update = matrix - coefficient * torch.eye(rows, dtype=matrix.dtype, device=matrix.device)
    share = update.square().sum(dim=(1, 2))[:, None] / squared
    # The difference J - aI is known to eps ||J||, so that a vanishing update is known to that and no better.
    return gain, exact(values=share, errors=2 * eps * (share.sqrt() + share))


def _from_probes(survey: Survey, step: Step) -> tuple[Result, Result]:
    operator, effort = step.jacobian, survey.effort
    probes = max(effort.gain_probes, -(-effort.least_probes // operator.samples))
    coefficient = _coefficient(step)
    whole, update = [], []
    seed = survey.seed(_DRAW, step.index)
    for block in gaussian_blocks(operator, probes, seed=seed, chunk_bytes=effort.chunk_bytes):
        pulled = pull(operator, block, chunk_bytes=effort.chunk_bytes)
        # Dividing by ||w||^2 = rows on average takes the radial part of the probes' noise away.
        size = squared_norms(block)
        whole.append(squared_norms(pulled) / size)
        if coefficient is not None:
            update.append(squared_norms(pulled - coefficient * block) / size)
    gains = torch.cat(whole, dim=1)
    method = f"Hutchinson, {probes} isotropic probes an input"
    estimate = partial(Result, label=Label.ESTIMATE, method=method, products=probes)
    gain = estimate(values=gains.mean(dim=1, keepdim=True), errors=standard_error(gains))
    if coefficient is None:
        return gain, _whole(operator.samples)
    updates = torch.cat(update, dim=1)
    share = updates.mean(dim=1, keepdim=True) / gain.values
    noise = standard_error((updates - share * gains) / gain.values)
    return gain, replace(estimate(values=share, errors=noise), method=f"{method}, ratio of means")
