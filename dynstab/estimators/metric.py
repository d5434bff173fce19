"""Quadratic Lyapunov functions and contraction in their metric.

For a stable J the discrete Lyapunov equation J^T P J - P = -Q has one solution P > 0, for a stable A the continuous
one A^T P + P A = -Q. In the norm ||x||_P = sqrt(x^T P x) the linear system shrinks at every step, which in the
Euclidean norm a non-normal one need not.

References:
    Lyapunov (1892); Khalil (2002), Nonlinear systems, ch. 4; Bartels & Stewart (1972), CACM 15; Soderlind (2006),
    BIT 46.
"""

from __future__ import annotations

import torch
from scipy.linalg import solve_continuous_lyapunov, solve_discrete_lyapunov
from torch import Tensor


def lyapunov_matrix(jacobian: Tensor, q: Tensor | None = None, *, continuous: bool = False) -> Tensor | None:
    """P > 0, float64 (n, n), or None where there is none: the system is not asymptotically stable.

    Args:
        jacobian: (n, n), of a step or, where `continuous`, of a field. q: (n, n), symmetric and positive; None is I.
    """
    matrix = jacobian.double().cpu()
    q = torch.eye(len(matrix), dtype=torch.float64) if q is None else q.double().cpu()
    if not bool(matrix.isfinite().all()):
        return None
    eigenvalues = torch.linalg.eigvals(matrix)
    margin = 4 * len(matrix) * torch.finfo(torch.float64).eps
    worst = eigenvalues.real.amax() if continuous else eigenvalues.abs().amax() - 1
    if float(worst) >= -margin:
        return None
    transposed = matrix.T.numpy()
    solution = (
        solve_continuous_lyapunov(transposed, -q.numpy())
        if continuous
        else solve_discrete_lyapunov(transposed, q.numpy())
    )
    p = torch.as_tensor(solution)
    p = (p + p.T) / 2
    return p if float(torch.linalg.eigvalsh(p)[0]) > 0 else None


def metric_gain(jacobian: Tensor, p: Tensor) -> float:
    """||P^(1/2) J P^(-1/2)||_2: the most by which a step stretches in the norm of P."""
    return float(torch.linalg.matrix_norm(_turned(jacobian, p), 2))


def metric_logarithmic_norm(field: Tensor, p: Tensor) -> float:
    """lambda_max of the symmetric part of P^(1/2) A P^(-1/2): the largest growth rate in the norm of P."""
    turned = _turned(field, p)
    return float(torch.linalg.eigvalsh((turned + turned.T) / 2)[-1])


def root(p: Tensor) -> Tensor:
    """The Cholesky factor L^T with P = L L^T, so that ||L^T x||_2 = ||x||_P."""
    return torch.linalg.cholesky(p).T


def _turned(matrix: Tensor, p: Tensor) -> Tensor:
    """Similar to P^(1/2) M P^(-1/2) by a rotation, which changes neither norm."""
    upper = root(p)
    return torch.linalg.solve_triangular(upper, upper @ matrix.double().cpu(), upper=True, left=False)
