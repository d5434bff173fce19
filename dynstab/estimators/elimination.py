"""Gaussian elimination between two QR factorisations of a frame on its way: a third of their price.

V = F U, U upper triangular, F unit lower triangular but for the order of its rows. Where a chain J_m ... J_1 Q is
eliminated after every step and factorised by QR at the end, its R is R_m U_{m-1} ... U_1: the columns were kept
independent on the way, and the exponents are those of QR to rounding.

References:
    Bauer (1957), ZAMP 8, 214 (Treppeniteration: elimination in place of orthogonalisation).
    Trefethen & Bau (1997), Numerical Linear Algebra, lecture 22 (F is well conditioned in practice).
"""

from __future__ import annotations

import torch
from torch import Tensor


def eliminate(columns: Tensor) -> tuple[Tensor, Tensor]:
    """F (samples, size, k) and U (samples, k, k), float64, by LU with partial pivoting; size >= k.

    Columns that depend on those before them, or are not finite, leave zeros or NaN on U's diagonal.
    """
    factors, pivots, _ = torch.linalg.lu_factor_ex(columns)
    upper = factors[:, : columns.shape[2]].triu().double()
    # LAPACK stores columns: read the other way round, rows lie together, and the frame is pushed as rows.
    rows = factors.mT.triu(1)
    rows.diagonal(dim1=1, dim2=2).fill_(1.0)
    order = _places(pivots, columns.shape[1]).to(columns.device)
    return rows.gather(2, order[:, None, :].expand_as(rows)).mT, upper


def _places(pivots: Tensor, size: int) -> Tensor:
    """(samples, size): the row of the triangular factor that each row of the columns is a multiple of."""
    found = []
    for sample in pivots.tolist():
        rows = list(range(size))
        for row, pivot in enumerate(sample):
            rows[row], rows[pivot - 1] = rows[pivot - 1], rows[row]
        found.append(rows)
    return torch.tensor(found).argsort(dim=1)
