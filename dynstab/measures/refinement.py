"""Is the residual stack a sampled flow? Compare the network with itself at coarser depth steps.

A stack h + f_l(h) that samples a smooth flow changes little when only every second block is kept and
counts double, h + 2 f_2l(h): with x(r) the result at step r, |x(2) - x(1)| and |x(4) - x(2)| are as 1 to 2, and
the order p = log2 of their ratio is 1. With independent weights from block to block the differences add up as
a random walk, p = 1/2 in the mean, and no flow is the limit. Halving the step of one block with its weights held would
not tell the two apart: that converges for any weights. An order near 1 alone tells no flow, since steps too large for
any limit can have it too: the weights must change little from block to block as well.

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
from dynstab.measures.blocks import RepeatedBlocks, Value

_COARSEST = 4
_HIGHEST = 1.3  # stacks that sample a flow have orders of 0.8 to 1.15; more says that the coarse ones blow up


def depth_smoothness(blocks: RepeatedBlocks) -> Estimate:
    """L * mean_l ||theta_{l+1} - theta_l|| / ||theta_l|| over the blocks: of order 1 where weights vary smoothly.

    Theta are the matrices and kernels; the gains of norms, which all begin as ones, would hide how these change, and
    so would biases, beside weights that are computed from parameters (W - W^T) and are not among those found.
    """
    vectors = [_flat(_weights(_parameters(blocks, block))) for block in range(blocks.count)]
    if not vectors[0].numel():
        return Estimate.unmeasured("the repeated blocks have no matrix or kernel that is a parameter itself")
    if not all(bool(vector.any()) for vector in vectors):
        return Estimate.unmeasured("the weights of a block are all zero")
    pairs = zip(vectors, vectors[1:], strict=False)
    ratios = [float((after - before).norm() / before.norm()) for before, after in pairs]
    value = blocks.count * sum(ratios) / len(ratios)
    method = f"{blocks.count} blocks of {blocks.period} steps"
    return Estimate(value=value, error=abs(value) * 1e-6, method=method, label=Label.EXACT)


def tied(blocks: RepeatedBlocks) -> bool:
    """Whether every block has the same parameters, gains and biases included."""
    first = _flat(_parameters(blocks, 0))
    return all(torch.equal(_flat(_parameters(blocks, block)), first) for block in range(1, blocks.count))


def _parameters(blocks: RepeatedBlocks, block: int) -> list[Tensor]:
    steps = blocks.steps[block * blocks.period : (block + 1) * blocks.period]
    return [parameter.detach() for step in steps for parameter in step.parameters]


def _weights(parameters: list[Tensor]) -> list[Tensor]:
    return [parameter for parameter in parameters if parameter.ndim > 1]


def _flat(parameters: list[Tensor]) -> Tensor:
    return torch.cat([parameter.float().flatten() for parameter in parameters]) if parameters else torch.zeros(0)


def refinement_order(blocks: RepeatedBlocks) -> Estimate:
    """The order p of the module's docstring, mean over inputs with its standard error.

    None where it is well above 1: then the stacks of larger steps are beyond what any series in the step describes.
    """
    count = blocks.count // _COARSEST * _COARSEST
    results = [blocks.columns(_run(blocks, count, stride))[:, :, 0] for stride in (1, 2, 4)]
    fine = torch.linalg.vector_norm(results[1] - results[0], dim=1, dtype=torch.float64)
    coarse = torch.linalg.vector_norm(results[2] - results[1], dim=1, dtype=torch.float64)
    noise = torch.linalg.vector_norm(results[0], dim=1, dtype=torch.float64) * torch.finfo(results[0].dtype).eps * 64
    if bool((fine <= noise).any()):
        return Estimate.unmeasured("coarser steps change less than rounding does")
    order = (coarse / fine).log2()
    if not float(order.mean()) <= _HIGHEST:  # NaN included
        return Estimate.unmeasured(f"the stacks of coarser steps blow up: log2 of their ratio is {order.mean():.1f}")
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
    """The stack with every `stride`-th block kept, its branches `stride` times as large."""
    value = blocks.value(0)
    with torch.no_grad():
        for block in range(0, count, stride):
            for position in range(block * blocks.period, (block + 1) * blocks.period):
                value = blocks.stretched(position, value, stride)
    return value
