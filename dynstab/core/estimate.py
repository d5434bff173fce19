"""A number and its doubt."""

from __future__ import annotations

from enum import StrEnum

from dynstab.core.frozen import Frozen

CONVERGED = "converged"


class Label(StrEnum):
    """What may be concluded from a number.

    EXACT          equal to the quantity up to rounding, `error` bounds the rounding
    CERTIFIED      a value of that kind lies within `error` (a residual bound)
    PROBABILISTIC  a bound that holds with the probability that `method` names
    ESTIMATE       a statistical or truncated value; `error` is one standard error
    LOWER, UPPER   a bound from that side, never the value itself
    """

    EXACT = "exact"
    CERTIFIED = "certified"
    PROBABILISTIC = "probabilistic"
    ESTIMATE = "estimate"
    LOWER = "lower"
    UPPER = "upper"


class Estimate(Frozen):
    """A measured number.

    Attributes:
        value: the number, or None where it was not measured (`outcome` then says why).
        error: half-width in the unit of `value`; what it means depends on `label`.
        unit: "1" for ratios, "nat/step" for exponents, "nat" for logarithms.
        method: the algorithm, with the facts one needs to repeat it.
        outcome: "converged", or in words why not.
        products: Jacobian-vector and vector-Jacobian products spent on it (per input).
        spread: standard deviation over the inputs, None for a single one.
        samples: how many inputs the value is a mean over.
    """

    value: float | None
    error: float | None = None
    unit: str = "1"
    method: str = ""
    label: Label = Label.ESTIMATE
    outcome: str = CONVERGED
    products: int = 0
    spread: float | None = None
    samples: int = 1

    @classmethod
    def unmeasured(cls, reason: str, *, unit: str = "1") -> Estimate:
        """A number that was not measured, with the reason."""
        return cls(value=None, unit=unit, method="none", outcome=reason)

    @property
    def measured(self) -> bool:
        return self.value is not None
