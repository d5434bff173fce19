"""Explicit Euler: how large a step an eigenvalue of a field allows."""

from __future__ import annotations

import math
from collections.abc import Iterable


def stable_step(eigenvalues: Iterable[tuple[float, float]]) -> float | None:
    """The largest h with |1 + h lambda| <= 1 for every decaying eigenvalue lambda = z - 1 of the field.

    |1 + h lambda|^2 = 1 + 2 h Re lambda + h^2 |lambda|^2, so h = -2 Re lambda / |lambda|^2: 0 for a purely
    imaginary lambda, which no step tames.

    Args:
        eigenvalues: z = 1 + lambda of the step's Jacobian, as (real, imaginary).

    Returns:
        None where no eigenvalue decays or oscillates.
    """
    steps = []
    for real, imaginary in eigenvalues:
        rate, size = real - 1.0, math.hypot(real - 1.0, imaginary)
        if math.isfinite(size) and size > 0 and rate <= 0:
            steps.append(-2.0 * (rate / size) / size)
    return min(steps, default=None)
