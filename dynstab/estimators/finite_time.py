"""Finite-time exponents of a chain, Lambda_i = (1/L) ln sigma_i(J_{L-1} ... J_0).

Exactly from the dense chain by product QR. Matrix-free the leading ones, in
two ways that complement each other. Block Golub-Kahan on the product finds singular values that are close
to each other, down to eps * sigma_1. Below that, forward-backward pairs: a frame is carried forth by QR,
its image back by the transposed chain, and again; the subspace converges like (sigma_{k+1} / sigma_i)^2 a
pair, fast exactly where the product is ill-conditioned. A forward frame alone would measure the mean
gain of a random subspace, not the leading exponents.

References:
    Geist, Parlitz & Lauterborn (1990), Prog. Theor. Phys. 83; Golub, Luk & Overton (1981), ACM TOMS 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dynstab.core.estimate import CONVERGED, Label
from dynstab.estimators.adapters import Transposed, workable
from dynstab.estimators.dense import matrices_of
from dynstab.estimators.frame_walk import FrameWalk
from dynstab.estimators.golub_kahan import SingularTriplets, largest_singular_values
from dynstab.estimators.orthogonal import complete, extend, random_frame
from dynstab.estimators.product_qr import log_singular_values
from dynstab.estimators.result import Result, blank
from dynstab.linear.operator import LinearOperator


def dense_log_singular_values(operators: Sequence[LinearOperator]) -> Result:
    """ln sigma_i of the product, all of them, from the dense matrices in float64: (samples, k), descending.

    Costs min(rows, cols) products a step. Divide by the number of steps for exponents.

    Raises:
        ValueError: no operator.
    """
    if not operators:
        raise ValueError("exponents need at least one step")
    # What the steps' own dtype cannot tell from zero is a lost direction, in float64 too.
    floor = 16 * torch.finfo(operators[0].dtype).eps
    found = log_singular_values([matrices_of(operator) for operator in operators], floor=floor)
    return replace(
        found, method=f"dense chain, {found.method}", products=sum(min(operator.shape) for operator in operators)
    )


def leading_log_singular_values(
    operators: Sequence[LinearOperator], k: int = 8, *, rtol: float = 1e-2, budget: int = 400, seed: int = 0
) -> Result:
    """The `k` leading ln sigma_i of the product, matrix-free: (samples, k), descending.

    Args:
        rtol: on each sigma_i. budget: of products with the whole chain, per sample; Golub-Kahan, whose basis
            grows with them, takes half of it at most.

    Returns:
        CERTIFIED values from Golub-Kahan where all k of them stand above the rounding of sigma_1; else
        LOWER bounds from forward-backward pairs (sigma_i of the product restricted to a subspace), `errors`
        the change in the last pair.

    Raises:
        ValueError: no operator.
    """
    operators = [workable(operator) for operator in operators]
    product = ScaledProduct(operators, seed=seed)
    triplets = largest_singular_values(product, k, rtol=rtol, budget=budget // 2, seed=seed)
    first, last = triplets.values[:, 0], triplets.values[:, -1]
    drowned = (last <= 1e3 * torch.finfo(product.dtype).eps * first) & (first > 0)
    if not bool(drowned.any()):
        logs = triplets.logarithm()
        return logs.with_values(logs.values - product.log_scale[:, None], logs.errors)
    # Two pairs at least: what the second changes is the error of the first.
    left = (budget - triplets.products) // (2 * triplets.right.shape[2])
    return _pairs(operators, triplets, rtol=rtol, most=max(2, left), seed=seed)


def exponents(log_values: Result, steps: int) -> Result:
    """ln sigma_i -> (1/steps) ln sigma_i, nat per step."""
    return log_values.with_values(log_values.values / steps, log_values.errors / steps)


class ScaledProduct(LinearOperator):
    """c_{L-1} J_{L-1} ... c_0 J_0 with constants that keep a random block at size one after every step.

    A product of a hundred contractive float32 Jacobians is zero in float32; this one is not, and its
    singular values are those of the product times exp(log_scale), (samples,).
    """

    def __init__(self, operators: Sequence[LinearOperator], *, seed: int = 0, probes: int = 4) -> None:
        if not operators:
            raise ValueError("a product needs at least one operator")
        first = operators[0]
        self.operators = operators
        self.samples, self.cols, self.rows = first.samples, first.cols, operators[-1].rows
        self.dtype, self.device = first.dtype, first.device
        columns = random_frame(
            self.samples, self.cols, min(probes, self.cols), seed=seed, dtype=self.dtype, device=self.device
        )
        self.scales: list[Tensor] = []
        for operator in operators:
            columns = operator.matmat(columns)
            size = columns.double().norm(dim=1).amax(dim=1)
            scale = torch.where((size > 0) & size.isfinite(), 1 / size, 1.0)
            columns = columns * scale[:, None, None].to(columns.dtype)
            self.scales.append(scale)
        self.log_scale = torch.stack(self.scales).log().sum(dim=0)

    def matmat(self, columns: Tensor) -> Tensor:
        for operator, scale in zip(self.operators, self.scales, strict=True):
            columns = operator.matmat(columns) * scale[:, None, None].to(columns.dtype)
        return columns

    def rmatmat(self, columns: Tensor) -> Tensor:
        for operator, scale in zip(reversed(self.operators), reversed(self.scales), strict=True):
            columns = operator.rmatmat(columns) * scale[:, None, None].to(columns.dtype)
        return columns


def _pairs(
    operators: Sequence[LinearOperator], start: SingularTriplets, *, rtol: float, most: int, seed: int
) -> Result:
    """Forward-backward pairs from the right singular vectors that Golub-Kahan found."""
    k = start.right.shape[2]
    frame = complete(None, extend(None, start.right)[0], seed=seed)
    back = [Transposed(operator) for operator in reversed(operators)]
    bad = start.values.isnan().any(dim=1)
    values = torch.full((len(bad), k), torch.nan, dtype=torch.float64, device=frame.device)
    errors, done, count, products = torch.full_like(values, torch.inf), False, 0, start.products
    while count < most and not done:
        image, factors = _carry(operators, frame)
        found = log_singular_values(factors)
        wide = torch.nn.functional.pad(found.values, (0, k - found.values.shape[1]), value=-torch.inf)
        errors = (wide - values).abs().masked_fill(wide == values, 0.0).nan_to_num(nan=torch.inf)
        values, count = wide, count + 1
        done = bool((errors <= rtol)[~bad].all())
        frame, _ = _carry(back, image)
        frame = torch.nn.functional.pad(frame.masked_fill(bad[:, None, None], 0.0), (0, k - frame.shape[2]))
        frame = complete(None, frame, seed=seed + count)
        products += 2 * k
    result = Result(
        values=values,
        errors=errors,
        label=Label.LOWER,
        method=f"{count} forward-backward QR pairs after {start.method}",
        products=products,
        outcome=CONVERGED if done else f"still moving by {float(errors[~bad].max()):.1e} nat after {count} pairs",
    )
    return blank(result, bad)


def _carry(operators: Sequence[LinearOperator], frame: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    walk = FrameWalk(frame, memory_limit=2**62)
    for operator in operators:
        walk.push(operator)
    found = walk.finish()
    return found.frame, found.factors
