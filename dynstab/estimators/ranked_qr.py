"""QR that knows its rank: what is only rounding noise of its own column is a direction lost.

A column that depends on those before it leaves an arbitrary vector in Q, and the columns behind it would be
measured against that vector. So it moves behind them, in each sample of the batch by itself.

References:
    Golub & Van Loan (2013), Matrix Computations, section 5.4 (rank-revealing QR).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dynstab.estimators.orthogonal import orthonormalise


@dataclass(frozen=True, kw_only=True)
class RankedQR:
    """columns = q r with the columns that are lost moved behind the others.

    Attributes:
        q: (samples, size, k'). r: (samples, k', k), for the columns in the order given, with zero rows for
            lost directions: upper triangular unless columns were moved.
        logs: (samples, k'), ln |R_ii| of the moved order, -inf for lost directions.
        lengths: (samples, k'), of the columns in the moved order, from which R_ii is what remains.
        lost: (samples, k').
    """

    q: Tensor
    r: Tensor
    logs: Tensor
    lengths: Tensor
    lost: Tensor


def ranked_qr(columns: Tensor, lost: Tensor, floor: float) -> RankedQR:
    """QR that knows its rank.

    Args:
        columns: (samples, size, k). lost: (samples, k), directions lost before. floor: R_ii at or below that
            share of its own column is a direction lost now.
    """
    q, r = orthonormalise(columns)
    diagonal, lengths = _remains(r)
    gone = (diagonal <= floor * lengths) | lost[:, : r.shape[1]]
    if not bool(gone.any()):
        return RankedQR(q=q, r=r, logs=diagonal.log(), lengths=lengths, lost=gone)
    behind = torch.nn.functional.pad(gone, (0, columns.shape[2] - gone.shape[1]))
    order = behind.to(torch.int8).argsort(dim=1, stable=True)
    q, r = orthonormalise(columns.gather(2, order[:, None, :].expand_as(columns)))
    diagonal, lengths = _remains(r)
    gone = (diagonal <= floor * lengths) | behind.gather(1, order)[:, : r.shape[1]]
    logs = diagonal.log().masked_fill(gone, -torch.inf)
    r = r.masked_fill(gone[:, :, None], 0.0)
    back = torch.zeros_like(r).scatter(2, order[:, None, :].expand_as(r), r)
    return RankedQR(q=q, r=back, logs=logs, lengths=lengths, lost=gone)


def _remains(r: Tensor) -> tuple[Tensor, Tensor]:
    """|R_ii| and the lengths of the columns that they remain of."""
    return torch.diagonal(r, dim1=1, dim2=2).abs(), r[:, :, : r.shape[1]].norm(dim=1)
