"""QR exponents of a chain, with their errors and the R factors that finite-time exponents are made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dynstab.estimators.result import Result


@dataclass(frozen=True, kw_only=True)
class QRExponents(Result):
    """QR exponents, (samples, k), nat per step, descending; errors are batch-means standard errors over the chain.

    Attributes:
        logs: (samples, intervals, k), sum of ln R_ii over each interval. lengths: steps in each interval.
        factors: the R factors, (samples, k', k) each, in the order in which they act; empty where not kept.
        frame: the last Q, (samples, size, k').
    """

    logs: Tensor
    lengths: tuple[int, ...]
    factors: tuple[Tensor, ...]
    frame: Tensor


def batch_means_error(logs: Tensor, lengths: Tensor, *, batches: int = 20) -> Tensor:
    """Standard errors (samples, k) of sum(logs) / sum(lengths) from the means of consecutive batches.

    Args:
        logs: (samples, intervals, k). lengths: (intervals,). NaN for fewer than two intervals;
            0 where a value is -inf: no scatter can move it.

    References:
        Flegal & Jones (2010), Ann. Statist. 38 (batch means).
    """
    intervals = logs.shape[1]
    if intervals < 2:
        return torch.full_like(logs[:, 0], torch.nan)
    parts = torch.arange(intervals, device=logs.device).tensor_split(min(batches, intervals))
    weights = torch.stack([lengths[part].sum() for part in parts])
    means = torch.stack([logs[:, part].sum(dim=1) / lengths[part].sum() for part in parts], dim=1)
    share = (weights / weights.sum())[None, :, None]
    center = (means * share).sum(dim=1, keepdim=True)
    variance = (share * (means - center).square()).sum(dim=1) / (len(parts) - 1)
    return variance.sqrt().where(~center[:, 0].isneginf(), 0.0)
