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

import torch
from torch import Tensor

from dynstab.core.estimate import Estimate, Label
from dynstab.estimators.result import Result
from dynstab.measures.aggregate import summarise
from dynstab.measures.blocks import RepeatedBlocks, Value, plus

_COARSEST = 4


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


def refinement_order(blocks: RepeatedBlocks) -> Estimate:
    """The order p of the module's docstring, mean over inputs with its standard error."""
    count = blocks.count // _COARSEST * _COARSEST
    results = [blocks.columns(_run(blocks, count, stride))[:, :, 0] for stride in (1, 2, 4)]
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


def _run(blocks: RepeatedBlocks, count: int, stride: int) -> Value:
    """The stack with every `stride`-th block kept, its updates `stride` times as large."""
    value = blocks.value(0)
    with torch.no_grad():
        for block in range(0, count, stride):
            for position in range(block * blocks.period, (block + 1) * blocks.period):
                value = plus(value, blocks.update(position, value), stride)
    return value
