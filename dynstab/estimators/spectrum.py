"""What `lyapunov_spectrum` and `lyapunov_spectra` give back."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from dynstab.estimators.product_qr import log_singular_values

_ACCURACY = 1e-4  # of finite-time exponents, nat per step at the worst


class Propagator:
    """The R factors of a walk over `steps` steps of length `time_step`, and the exponents of their product.

    Args:
        factors: (trajectories, k', k) each, in the order in which they act; none where they were not kept.
        rows: (trajectories,) bool, of which exponents are wanted. k: how many.
    """

    def __init__(self, factors: tuple[Tensor, ...], *, rows: Tensor, k: int, steps: int, time_step: float) -> None:
        self._factors, self._rows = factors, rows.cpu()
        self.k, self.steps, self._time_step = k, steps, time_step

    @cached_property
    def exponents(self) -> tuple[Tensor, ...]:
        """(k,) float64 of each trajectory, per unit of time, descending; NaN without factors, which are let go then."""
        factors, self._factors = self._factors, ()
        found = torch.full((len(self._rows), self.k), torch.nan, dtype=torch.float64)
        if factors:
            # Close pairs inside a wide spectrum take many passes for digits that the orbit's fluctuations drown.
            chain = [factor.cpu()[self._rows] for factor in factors]
            logs = log_singular_values(chain, tolerance=_ACCURACY * self.steps).values
            padded = torch.nn.functional.pad(logs, (0, self.k - logs.shape[1]), value=-torch.inf)
            found[self._rows] = padded / (self.steps * self._time_step)
        return found.unbind()


@dataclass(frozen=True, kw_only=True, eq=False)
class LyapunovSpectrum:
    """Exponents of an orbit, descending, in `unit`.

    Attributes:
        qr: (k,) float64, (1/L) sum ln R_ii (Benettin et al. 1980).
        errors: (k,) standard errors of `qr` by batch means, for vector fields with the error of the solver's steps
            added; NaN for a single factorisation.
        sum: of all exponents, (1/L) ln |det|; NaN where fewer were asked for.
        kaplan_yorke_dimension: NaN where it lies beyond the exponents asked for.
        entropy: the sum of the positive exponents; NaN where there may be more than were asked for.
        state: the last one. steps: how many were measured.
        outcome: "converged", or what became of the orbit; "dt is too large" where the solver's steps and not the
            field make an exponent. Where the orbit diverged, all numbers are NaN.
        products: Jacobian-vector products spent on it.
        propagator: what `finite_time` is worked out from, of all trajectories of a run at once; holds the R factors
            until it is read. row: which of them this is.
    """

    qr: Tensor
    errors: Tensor
    sum: float
    kaplan_yorke_dimension: float
    entropy: float
    state: Any
    steps: int
    outcome: str
    products: int
    method: str
    unit: str = "nat/step"
    propagator: Propagator = field(repr=False)
    row: int = field(default=0, repr=False)

    @property
    def finite_time(self) -> Tensor:
        """(k,) float64, (1/L) ln sigma_i of the propagator over the same steps; NaN where it was not kept.

        For fewer than all exponents, of the propagator on the k tangents carried: lower bounds. To 1e-4 nat a
        step at the worst, inside a wide spectrum. Worked out when first read, which for hundreds of
        exponents takes as long as the orbit did.
        """
        return self.propagator.exponents[self.row]
