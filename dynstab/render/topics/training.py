"""A training run: its sharpness beside the optimiser's threshold."""

from __future__ import annotations

from collections.abc import Iterator

from dynstab.core.estimate import Estimate
from dynstab.core.report import Report
from dynstab.core.training_dynamics import TrainingDynamics
from dynstab.render.numbers import number
from dynstab.render.topics import Topic

ORDER = 30

_STANDS = {
    "stable": "below the edge of stability: no direction overshoots; what has negative curvature still grows",
    "at the edge": "at the edge of stability, where training on the full batch settles by itself",
    "beyond": "beyond the edge: deviations along the sharpest direction grow at every step",
    "unknown": "not known",
}


def topic(report: Report) -> Topic | None:
    """The chapter of a training run; None for others."""
    training = report.measurements.training
    if training is None:
        return None
    return Topic(
        title="Training",
        remark=f"{training.optimizer}, learning rate {number(training.learning_rate)}",
        facts=tuple(_facts(training)),
        remarks=(("the run is", _STANDS[training.stands]), ("loss", number(training.loss))),
    )


def _facts(training: TrainingDynamics) -> Iterator[tuple[str, Estimate, str]]:
    seen = " of the preconditioned Hessian" if training.preconditioned else ""
    for rank, value in enumerate(training.eigenvalues or (training.sharpness,), start=1):
        yield (f"sharpness{seen}" if rank == 1 else f"eigenvalue {rank}"), value, ""
    yield "threshold of the optimiser", training.threshold, ""
    yield "sharpness / threshold", training.ratio, ""
