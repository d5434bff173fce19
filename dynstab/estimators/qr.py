"""The QR exponents of a chain of operators."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dynstab.estimators.adapters import workable
from dynstab.estimators.frame_walk import LONGEST_INTERVAL, FrameWalk
from dynstab.estimators.orthogonal import random_frame
from dynstab.estimators.qr_result import QRExponents
from dynstab.linear.operator import LinearOperator


def qr_exponents(
    operators: Sequence[LinearOperator],
    k: int | None = None,
    *,
    frame: Tensor | None = None,
    keep_factors: bool = True,
    longest: int | None = None,
    floor: float | None = None,
    seed: int = 0,
) -> QRExponents:
    """Exponents of the chain of operators, given in the order in which they act.

    Args:
        k: how many; None is the full spectrum. frame: the first Q (samples, cols, k), random by default.
        longest: steps between two factorisations at most; by default at least 20 intervals are made,
            so that the standard errors mean something.
        floor: see `FrameWalk`; by default 16 times the rounding of the operators' dtype.

    Raises:
        ValueError: no operator.
    """
    if not operators:
        raise ValueError("exponents need at least one step")
    first = operators[0]
    if frame is None:
        width, dtype = min(k or first.cols, first.cols), workable(first).dtype
        frame = random_frame(first.samples, first.cols, width, seed=seed, dtype=dtype, device=first.device)
    if longest is None:
        longest = min(LONGEST_INTERVAL, max(1, len(operators) // 20))
    floor = 16 * torch.finfo(first.dtype).eps if floor is None else floor
    walk = FrameWalk(frame, keep_factors=keep_factors, longest=longest, floor=floor)
    for operator in operators:
        walk.push(operator)
    return walk.finish()
