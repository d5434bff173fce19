"""The public `singular_values`: dense and exact where the matrix is small, block Golub-Kahan where not."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from dynstab.core.errors import ConfigError, InputError
from dynstab.core.estimate import Estimate
from dynstab.estimators.dense import DENSE_LIMIT, dense_spectrum, matrices_of
from dynstab.estimators.golub_kahan import largest_singular_values, smallest_singular_values
from dynstab.estimators.result import Result
from dynstab.estimators.summary import to_estimates
from dynstab.linear.jacobian import Jacobian
from dynstab.linear.operator import DenseOperator, LinearOperator


def singular_values(
    J: Jacobian | LinearOperator | Tensor, k: int = 8, which: Literal["largest", "smallest", "all"] = "largest"
) -> tuple[Estimate, ...]:
    """Singular values of a Jacobian or of a matrix.

    Args:
        J: what `dynstab.jacobian` returned, an operator, or a real floating-point tensor (rows, cols). Of
            (samples, rows, cols), each Estimate is a mean over the samples.
        k: how many, for "largest" and "smallest".
        which: "largest" (descending), "smallest" of min(rows, cols) (ascending), or "all" (descending).

    Returns:
        Estimates, exact where the longer side is at most 512 or all are asked for. Else the largest are
        certified by their residuals, the smallest are upper bounds: see `golub_kahan`.

    Raises:
        InputError: `J` is neither an operator nor a real matrix. ConfigError: `k` or `which` cannot be served.
    """
    operator = _operator(J)
    if which not in ("largest", "smallest", "all"):
        raise ConfigError(f"which={which!r}", expected="'largest', 'smallest' or 'all'")
    if k < 1:
        raise ConfigError(f"k={k}", expected="a positive number of singular values")
    if which == "all" or max(operator.shape) <= DENSE_LIMIT:
        return to_estimates(_dense(operator, k, which))
    if which == "largest":
        return to_estimates(largest_singular_values(operator, k))
    return to_estimates(smallest_singular_values(operator, k))


def _operator(J: Jacobian | LinearOperator | Tensor) -> LinearOperator:
    if isinstance(J, Jacobian):
        return J.operator
    if isinstance(J, LinearOperator):
        return J
    if not isinstance(J, Tensor) or J.ndim not in (2, 3) or not J.is_floating_point():
        got = f"a tensor of shape {tuple(J.shape)} and {J.dtype}" if isinstance(J, Tensor) else f"{type(J).__name__}"
        raise InputError(
            f"singular_values got {got}", expected="a real matrix or a Jacobian", remedy="see dynstab.jacobian"
        )
    return DenseOperator(J.detach())


def _dense(operator: LinearOperator, k: int, which: str) -> Result:
    spectrum = dense_spectrum(matrices_of(operator), products=_cost(operator)).singular_values
    if which == "all":
        return spectrum
    if which == "largest":
        return spectrum.with_values(spectrum.values[:, :k], spectrum.errors[:, :k])
    return spectrum.with_values(spectrum.values.flip(1)[:, :k], spectrum.errors.flip(1)[:, :k])


def _cost(operator: LinearOperator) -> int:
    return 0 if isinstance(operator, DenseOperator) else min(operator.shape)
