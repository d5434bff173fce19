"""Whether the directions that grow and those that shrink stay apart: angles between covariant Lyapunov vectors."""

from __future__ import annotations

import torch
from torch import Tensor

from dynstab.core.estimate import CONVERGED, Estimate, Label
from dynstab.estimators.covariant import CovariantVectors, covariant_vectors
from dynstab.estimators.qr_result import QRExponents
from dynstab.estimators.result import Result
from dynstab.linear.operator import LinearOperator
from dynstab.measures.aggregate import summarise
from dynstab.measures.effort import NEEDS_STANDARD
from dynstab.measures.survey import Survey
from dynstab.systems.trajectory import Trajectory

_DRAW = 13
_LONGEST = 600
_FEWEST = 40
_MOST_VECTORS = {"quick": 0, "standard": 8, "thorough": 20}
_BINS = 30


def measure_directions(survey: Survey, whole: Trajectory, found: QRExponents) -> dict[str, object]:
    """Angles between covariant vectors, over the last part of the sequence."""
    values = found.values.mean(dim=0)
    finite = int((values > -torch.inf).sum())
    k = min(_MOST_VECTORS[survey.config.effort], finite)
    operators: list[LinearOperator] = [step.jacobian for step in whole.steps][-_LONGEST:]
    if not _MOST_VECTORS[survey.config.effort]:
        reason = NEEDS_STANDARD
    elif k < 2:
        reason = "needs two directions that are not lost"
    elif len(operators) < _FEWEST:
        reason = f"needs {_FEWEST} steps"
    elif not bool(values.isfinite()[:k].all()):
        reason = "the exponents are not finite"
    else:
        third = len(operators) // 3
        vectors = covariant_vectors(operators, k, lead_in=third, lead_out=third, seed=survey.seed(_DRAW))
        if vectors.outcome == CONVERGED:
            return _angle_fields(vectors, values[:k])
        reason = vectors.outcome
    missing = Estimate.unmeasured(reason, unit="rad")
    return {"least_angle": missing, "mean_angle": missing}


def _angle_fields(vectors: CovariantVectors, exponents: Tensor) -> dict[str, object]:
    samples, times, k = vectors.coefficients.shape[:3]
    method = f"covariant vectors (Ginelli), {k} of them at {times} states"
    angles = vectors.angles()
    pairs = tuple(_mean_over_time(angles[:, :, i, i + 1], method) for i in range(k - 1))
    leading = int((exponents > 0).sum())
    fields: dict[str, object] = {"angles": pairs}
    if not 0 < leading < k:
        reason = "no direction expands" if not leading else f"all {k} directions followed expand"
        missing = Estimate.unmeasured(reason, unit="rad")
        return fields | {"least_angle": missing, "mean_angle": missing}
    split = vectors.splitting(leading)
    least = Estimate(
        value=float(split.amin()),
        error=0.0,
        unit="rad",
        method=f"{method}, smallest of those met",
        label=Label.UPPER,
        samples=samples,
    )
    counts = torch.histc(split.float(), bins=_BINS, min=0.0, max=torch.pi / 2)
    return fields | {
        "splitting": leading,
        "least_angle": least,
        "mean_angle": _mean_over_time(split, method),
        "angle_shares": tuple((counts / counts.sum()).tolist()),
    }


def _mean_over_time(series: Tensor, method: str) -> Estimate:
    """Of (samples, times), with the standard error of ten batches an input."""
    batches = torch.stack([part.mean(dim=1) for part in series.tensor_split(10, dim=1)], dim=1)
    result = Result(
        values=series.mean(dim=1, keepdim=True).double(),
        errors=batches.std(dim=1, keepdim=True).double() / batches.shape[1] ** 0.5,
        label=Label.ESTIMATE,
        method=method,
    )
    return summarise(result, unit="rad")
