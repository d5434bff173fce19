"""Training as a dynamical system: the weights under an optimiser."""

from __future__ import annotations

from dynstab.core.estimate import Estimate
from dynstab.core.frozen import Frozen

EDGE = (0.9, 1.15)
"""Sharpness over threshold: below, no update overshoots; between, at the edge, where full-batch training settles."""


class TrainingDynamics(Frozen):
    """Where a training run stands: sharpness beside the optimiser's threshold.

    Attributes:
        optimizer: its name, with the momentum. learning_rate: the largest of all groups.
        loss: at these weights. preconditioned: the Hessian is seen through the optimiser's rates, P^-1 H.
        sharpness: lambda_max of the (preconditioned) Hessian. eigenvalues: the leading ones, descending.
        threshold: the largest sharpness at which the linearised optimiser is stable, in the same unit.
        ratio: sharpness / threshold, 1 at the edge of stability.
    """

    optimizer: str
    learning_rate: float
    loss: float
    preconditioned: bool
    sharpness: Estimate
    threshold: Estimate
    ratio: Estimate
    eigenvalues: tuple[Estimate, ...] = ()

    @property
    def stands(self) -> str:
        """stable (no direction overshoots; negative curvature is not asked for), at the edge, beyond, or unknown."""
        ratio = self.ratio.value
        if ratio is None or ratio != ratio:
            return "unknown"
        return "stable" if ratio < EDGE[0] else "at the edge" if ratio <= EDGE[1] else "beyond"

    def __str__(self) -> str:
        places = {
            "stable": "below the edge of stability",
            "at the edge": "at the edge of stability",
            "beyond": "beyond the edge: deviations along the sharpest direction grow",
            "unknown": f"not known ({self.sharpness.outcome})",
        }
        seen = " (preconditioned)" if self.preconditioned else ""
        return (
            f"{self.optimizer}, learning rate {self.learning_rate:.3g}: sharpness{seen} {_short(self.sharpness)}, "
            f"threshold {_short(self.threshold)}, ratio {_short(self.ratio)}: {places[self.stands]}"
        )


def _short(estimate: Estimate) -> str:
    return "not measured" if estimate.value is None else f"{estimate.value:.3g}"
