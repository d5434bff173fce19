"""How well exponents along a sequence are known: scatter, what has not settled, and how far the frame is aligned.

Batch means see the scatter alone. A sequence that is short beside the gaps of its spectrum has two errors
more, which do not shrink with the number of inputs: exponents that still drift (a transient, a growth that is slower
than exponential), and tangents that have not turned into their directions. The first shows as a difference between
the halves, the second as one between ln |R_ii| and the logarithms of the singular values of the same product: both
tend to the exponents, from different sides. A frame of a few directions in a large space may miss the leading ones from
the start, which its own singular values do not show: pulled back over the same steps it comes nearer to them.

References:
    Flegal & Jones (2010), Ann. Statist. 38 (batch means); Geist, Parlitz & Lauterborn (1990), Prog. Theor. Phys. 83.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dynstab.estimators.product_qr import log_singular_values
from dynstab.estimators.qr_result import QRExponents

_ACCURACY = 1e-4  # of the singular values' exponents, nat per step at the worst


def errors_of_means(found: QRExponents, k: int, rounding: float, back: QRExponents | None = None) -> Tensor:
    """(width,): one standard deviation of each exponent's mean over the inputs, nat per step.

    Scatter and drift are one error seen in two ways: the larger of them counts. The other two come on top.

    Args:
        found: exponents with the R factors they came from, or without: then alignment is not seen.
        k: how many leading ones are compared with singular values. rounding: of one step, relative.
        back: of the same steps by the last frame pulled back, where it holds few directions of many.

    Returns:
        NaN where there were fewer than two factorisations; 0 where the exponent is -inf.
    """
    scatter = found.errors.norm(dim=0) / len(found.errors)
    size = torch.full_like(scatter, rounding)
    known = torch.maximum(scatter, _drift(found).abs())
    error = torch.stack([known, _misalignment(found, k), _missed(found, back), size]).norm(dim=0)
    return error.where(~found.values.isneginf().any(dim=0), 0.0)


def _drift(found: QRExponents) -> Tensor:
    """(width,): half of what lies between the exponents of the halves, mean over inputs."""
    lengths = torch.tensor(found.lengths, dtype=torch.float64, device=found.logs.device)
    first = lengths.cumsum(0) <= lengths.sum() / 2
    if bool(first.all()) or not bool(first.any()):
        return torch.zeros_like(found.values[0])
    order = found.logs.sum(dim=1).nan_to_num(nan=-torch.inf).argsort(dim=1, descending=True, stable=True)
    early, late = (found.logs[:, part].sum(dim=1) / lengths[part].sum() for part in (first, ~first))
    return _mean((late - early).gather(1, order) / 2)


def _misalignment(found: QRExponents, k: int) -> Tensor:
    """(width,): from the exponents to those of the singular values, mean over inputs; 0 beyond the `k` leading ones."""
    missing = torch.zeros_like(found.values[0])
    if not found.factors:
        return missing
    # Of upper triangles: the leading part of their product is the product of their leading parts.
    chain = [factor[:, :k, :k] for factor in found.factors]
    steps = sum(found.lengths)
    logs = log_singular_values(chain, tolerance=_ACCURACY * steps).values / steps
    width = min(k, logs.shape[1], found.values.shape[1])
    missing[:width] = _mean(found.values[:, :width] - logs[:, :width].to(found.values.device))
    return missing


def _missed(found: QRExponents, back: QRExponents | None) -> Tensor:
    """(width,): by how much a frame that has turned further is ahead, mean over inputs."""
    if back is None:
        return torch.zeros_like(found.values[0])
    return _mean(back.values - found.values)


def _mean(differences: Tensor) -> Tensor:
    """Over inputs; what is lost on one side or on both says nothing."""
    return differences.where(differences.isfinite(), 0.0).mean(dim=0)
