"""What is left of a gradient so many steps back: how far a recurrence learns from.

References:
    Bengio, Simard & Frasconi (1994), IEEE Trans. Neural Networks 5.
"""

from __future__ import annotations

from math import isfinite, log

import torch
from torch import Tensor

from dynstab.core.estimate import Estimate, Label
from dynstab.measures.flow_profile import swept_profile
from dynstab.measures.survey import Survey
from dynstab.systems.trajectory import Trajectory

LONGEST_MEMORY = 2000
"""Steps back that are looked at."""

_DRAW = 12
_SHOWN = 200


def measure_memory(survey: Survey, whole: Trajectory) -> dict[str, object]:
    """The gain of isotropic cotangents at the last state, at every state before it."""
    operators = [step.jacobian for step in whole.steps][-LONGEST_MEMORY:]
    profile = swept_profile(
        operators,
        survey.effort.flow_probes,
        seed=survey.seed(_DRAW),
        chunk_bytes=survey.effort.chunk_bytes,
        tick=survey.tick,
    )
    back = profile.log_gain.flip(1).cpu()
    lags = list(range(back.shape[1]))
    pace = max(1, len(lags) // _SHOWN)
    shown = lags[::pace]
    mean = back.mean(dim=0)
    return {
        "half_life": _half_life(back, profile.products),
        "reach": _last_above(back, -log(20.0), profile.products),
        "sequence": len(operators),
        "memory_lags": tuple(shown),
        "memory": tuple(float(mean[lag]) for lag in shown),
    }


def _half_life(back: Tensor, products: int) -> Estimate:
    """ln 2 over the mean rate of decay, mean over inputs; up to the last lag at which a gradient is left."""
    lives = []
    for row in back:
        left = int(row.isfinite().sum()) - 1
        rate = -float(row[left]) / left if left > 0 else torch.nan
        if not rate > 0:
            reason = (
                "the gradient does not shrink on its way back" if left > 0 else "no gradient is left after one step"
            )
            return Estimate.unmeasured(reason, unit="steps")
        lives.append(log(2.0) / rate)
    values = torch.tensor(lives, dtype=torch.float64)
    scatter = float(values.std()) if len(values) > 1 else None
    return Estimate(
        value=float(values.mean()),
        error=None if scatter is None else scatter / len(values) ** 0.5,
        unit="steps",
        method=f"mean rate of a backward sweep over {back.shape[1] - 1} steps",
        products=products,
        spread=scatter,
        samples=len(values),
    )


def _last_above(back: Tensor, level: float, products: int) -> Estimate:
    """The lag from which ln of the gain stays below `level`, between two lags in proportion; mean over inputs."""
    if bool(back.isnan().any()):
        return Estimate.unmeasured("a gradient is not finite", unit="steps")
    found, reached = [], True
    for row in back:
        last = int((row >= level).nonzero()[-1])
        if last == len(row) - 1:
            reached = False
            found.append(float(last))
            continue
        above, below = float(row[last]), float(row[last + 1])
        found.append(last + ((above - level) / (above - below) if isfinite(below) else 1.0))
    values = torch.tensor(found, dtype=torch.float64)
    scatter = float(values.std()) if len(values) > 1 else None
    return Estimate(
        value=float(values.mean()),
        error=scatter / len(values) ** 0.5 if scatter is not None and reached else None,
        unit="steps",
        method="backward sweep from the last state" + ("" if reached else ", longer than the sequence for some input"),
        label=Label.ESTIMATE if reached else Label.LOWER,
        products=products,
        spread=scatter,
        samples=len(values),
    )
