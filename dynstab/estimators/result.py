"""What an estimator returns: numbers per sample, with their errors and what may be concluded."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dynstab.core.estimate import CONVERGED, Label

NON_FINITE = "non-finite"


@dataclass(frozen=True, kw_only=True)
class Result:
    """`k` numbers for each of `samples` independent matrices.

    Attributes:
        values: (samples, k), float64 (complex128 for eigenvalues), descending unless said otherwise.
            NaN where the operator was not finite.
        errors: (samples, k), float64: a bound on the numerical error, or one standard error
            where `label` is ESTIMATE; NaN where nothing is known.
        label: what may be concluded from each of the values.
        method: the algorithm, with the facts one needs to repeat it.
        products: Jacobian-vector and vector-Jacobian products spent, per sample.
        outcome: "converged", or in words why not.
    """

    values: Tensor
    errors: Tensor
    label: Label
    method: str
    products: int = 0
    outcome: str = CONVERGED

    @property
    def converged(self) -> bool:
        return self.outcome == CONVERGED

    def column(self, index: int) -> Result:
        """The number at one position, as (samples, 1)."""
        chosen = slice(index, index + 1)
        return self.with_values(self.values[:, chosen], self.errors[:, chosen])

    def with_values(self, values: Tensor, errors: Tensor, *, label: Label | None = None) -> Result:
        """The same provenance for numbers derived from these."""
        return Result(
            values=values,
            errors=errors,
            label=self.label if label is None else label,
            method=self.method,
            products=self.products,
            outcome=self.outcome,
        )

    def logarithm(self, *, scale: float = 1.0) -> Result:
        """`scale * ln(values)`, with the error bar carried to first order; ln 0 is -inf and has no error.

        Where the error exceeds the value, the logarithm is known from above alone: its error is infinite.
        """
        relative = self.errors / self.values
        errors = scale * torch.where(relative < 1, -torch.log1p(-relative.clamp(max=1)), torch.inf)
        errors = errors.where(~self.values.isnan(), torch.nan).where(self.values != 0, 0.0)
        return self.with_values(scale * self.values.log(), errors)


def non_finite_samples(*blocks: Tensor) -> Tensor:
    """Which samples hold a NaN or an infinity: (samples,) bool."""
    bad = torch.zeros(blocks[0].shape[0], dtype=torch.bool, device=blocks[0].device)
    for block in blocks:
        bad = bad | ~block.isfinite().flatten(1).all(dim=1)
    return bad


def blank(result: Result, bad: Tensor) -> Result:
    """NaN in the samples that were not finite, and an outcome that counts them."""
    if not bool(bad.any()):
        return result
    rows = bad.to(result.values.device)[:, None]
    return replace(
        result,
        values=result.values.masked_fill(rows, torch.nan),
        errors=result.errors.masked_fill(rows, torch.nan),
        outcome=f"{NON_FINITE} in {int(bad.sum())} of {len(bad)} inputs",
    )


def rounding(dtype: torch.dtype, rows: int, cols: int) -> float:
    """Relative to the largest singular value, what cannot be told from zero: max(rows, cols) * eps."""
    return max(rows, cols) * torch.finfo(dtype).eps
