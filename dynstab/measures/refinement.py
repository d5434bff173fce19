"""Is the residual stack a sampled flow? Compare the network with itself at coarser depth steps.

A stack h + f_l(h) that samples a smooth flow changes little when only every second block is kept and
counts double, h + 2 f_2l(h): with x(r) the result at step r, |x(2) - x(1)| and |x(4) - x(2)| are as 1 to 2, and
the order p = log2 of their ratio is 1. With independent weights from block to block the differences add up as
a random walk, p = 1/2 at best, and no flow is the limit. Halving the step of one block with its weights held would not
tell the two apart: that converges for any weights.

References:
    Haber & Ruthotto (2017), Stable architectures; Sander, Ablin & Peyre (2022), Do Residual Neural
    Networks discretize Neural ODEs?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dynstab.core.estimate import Estimate, Label
from dynstab.estimators.result import Result
from dynstab.measures.aggregate import summarise
from dynstab.systems.trajectory import Step, Trajectory

_COARSEST = 4
_LONGEST_PERIOD = 4


@dataclass(frozen=True, kw_only=True)
class RepeatedBlocks:
    """A run of residual steps whose parameters have the same shapes again every `period` steps.

    Attributes:
        steps: a whole number of blocks.
    """

    steps: tuple[Step, ...]
    period: int

    @property
    def count(self) -> int:
        return len(self.steps) // self.period


def repeated_blocks(trajectory: Trajectory) -> RepeatedBlocks | None:
    """The longest run of at least four repeated residual blocks of one to four steps, None if there is none."""
    best: RepeatedBlocks | None = None
    for run in _residual_runs(trajectory):
        for period in range(1, _LONGEST_PERIOD + 1):
            found = _repeating(run, period)
            if found is not None and (best is None or len(found.steps) > len(best.steps)):
                best = found
    return best


def _residual_runs(trajectory: Trajectory) -> list[list[Step]]:
    runs: list[list[Step]] = [[]]
    for step in trajectory.steps:
        same = trajectory.states[step.index].layout.shapes == trajectory.states[step.index + 1].layout.shapes
        if step.kind == "residual" and step.residual_coefficient == 1.0 and same:
            runs[-1].append(step)
        else:
            runs.append([])
    return [run for run in runs if run]


def _signature(step: Step) -> tuple[tuple[int, ...], ...]:
    return tuple(sorted(tuple(parameter.shape) for parameter in step.parameters))


def _repeating(run: list[Step], period: int) -> RepeatedBlocks | None:
    """The longest stretch of the run in which step l looks like step l + period."""
    start, best = 0, (0, 0)
    for position in range(period, len(run) + 1):
        if position < len(run) and _signature(run[position]) == _signature(run[position - period]):
            continue
        if position - start > best[1] - best[0]:
            best = (start, position)
        start = position - period + 1
    count = (best[1] - best[0]) // period
    if count < _COARSEST:
        return None
    return RepeatedBlocks(steps=tuple(run[best[0] : best[0] + count * period]), period=period)


def depth_smoothness(blocks: RepeatedBlocks) -> Estimate:
    """L * mean_l ||theta_{l+1} - theta_l|| / ||theta_l|| over the blocks: of order 1 where weights vary smoothly."""
    vectors = [_parameters(blocks, block) for block in range(blocks.count)]
    if not vectors[0].numel():
        return Estimate.unmeasured("the repeated blocks have no parameters")
    pairs = zip(vectors, vectors[1:], strict=False)
    ratios = [float((after - before).norm() / before.norm()) for before, after in pairs]
    value = blocks.count * sum(ratios) / len(ratios)
    method = f"{blocks.count} blocks of {blocks.period} steps"
    return Estimate(value=value, error=abs(value) * 1e-6, method=method, label=Label.EXACT)


def _parameters(blocks: RepeatedBlocks, block: int) -> Tensor:
    steps = blocks.steps[block * blocks.period : (block + 1) * blocks.period]
    flat = [parameter.detach().float().flatten() for step in steps for parameter in step.parameters]
    return torch.cat(flat) if flat else torch.zeros(0)


def refinement_order(trajectory: Trajectory, blocks: RepeatedBlocks) -> Estimate:
    """The order p of the module's docstring, mean over inputs with its standard error."""
    count = blocks.count // _COARSEST * _COARSEST
    steps = blocks.steps[: count * blocks.period]
    start = trajectory.states[steps[0].index]
    results = [
        start.layout.flatten(tuple(tensor[None] for tensor in _run(steps, blocks.period, stride, start.value)))[:, :, 0]
        for stride in (1, 2, 4)
    ]
    fine = torch.linalg.vector_norm(results[1] - results[0], dim=1, dtype=torch.float64)
    coarse = torch.linalg.vector_norm(results[2] - results[1], dim=1, dtype=torch.float64)
    noise = torch.linalg.vector_norm(results[0], dim=1, dtype=torch.float64) * torch.finfo(results[0].dtype).eps * 64
    if bool((fine <= noise).any()):
        return Estimate.unmeasured("coarser steps change less than rounding does")
    order = (coarse / fine).log2()
    error = order.std() / len(order) ** 0.5 if len(order) > 1 else order.new_tensor(torch.nan)
    result = Result(
        values=order[:, None],
        errors=error.expand(len(order))[:, None],
        label=Label.ESTIMATE,
        method=f"{count} blocks of {blocks.period} steps, against every 2nd and every 4th",
        products=0,
    )
    estimate = summarise(result)
    return estimate.model_copy(update={"error": float(error) if len(order) > 1 else None})


def _run(steps: Sequence[Step], period: int, stride: int, value: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The stack with every `stride`-th block kept, its updates `stride` times as large."""
    with torch.no_grad():
        for position, step in enumerate(steps):
            if position // period % stride:
                continue
            image = step.function(value)
            value = tuple(old + stride * (new - old) for old, new in zip(value, image, strict=True))
    return value
