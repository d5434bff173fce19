"""DS711: the next updates of a training run overshoot, or the weights run away."""

from __future__ import annotations

import math
from collections.abc import Iterator

from dynstab.core.flag import Severity
from dynstab.core.training_dynamics import TrainingDynamics
from dynstab.diagnostics.case import Case
from dynstab.diagnostics.facts import Facts
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.training_reading import training_trouble
from dynstab.diagnostics.words import number


def find(facts: Facts) -> Iterator[Finding]:
    training = facts.measurements.training
    trouble = None if training is None else training_trouble(facts, training)
    if training is None or trouble is None:
        return
    yield Finding(
        measure=trouble.measure,
        value=trouble.value,
        threshold=trouble.threshold,
        severity=Severity.WARNING if trouble.measure == "training.ratio" else Severity.ERROR,
        where="network",
        message="; ".join(filter(None, (trouble.sentence, trouble.passing))) + ".",
        evidence={
            "sharpness": training.sharpness.value,
            "optimizer_threshold": training.threshold.value,
            "ratio": training.ratio.value,
            "learning_rate": training.learning_rate,
            "preconditioned": training.preconditioned,
        },
        advice=_advice(training),
    )


def _advice(training: TrainingDynamics) -> tuple[str, ...]:
    ratio = training.ratio.value
    known = ratio is not None and math.isfinite(ratio) and ratio > 1
    target = f" to {number(0.8 * training.learning_rate / ratio)}" if known and ratio else ""
    more = ("Raise eps or lower beta2 of Adam where few weights have a tiny second moment.",) * training.preconditioned
    return (
        f"Lower the learning rate{target}, or warm it up for longer: sharpness falls when it rises slowly.",
        "Clip the norm of the gradient, which bounds what an overshoot can do.",
        *more,
    )


_STABLE = {
    "optimizer": "gradient descent",
    "learning_rate": 0.1,
    "loss": 0.7,
    "preconditioned": False,
    "sharpness": 12.0,
    "threshold": 20.0,
    "ratio": 0.6,
}
_BEYOND = {**_STABLE, "sharpness": 30.0, "ratio": 1.5}
_ADAM = {**_STABLE, "optimizer": "Adam, beta1 0.9", "preconditioned": True, "learning_rate": 1e-3}


def _run(**other: object) -> Case:
    return Case(time="training", names="update", depth=8, **{"training": _STABLE, **other})  # type: ignore[arg-type]


RULE = Rule(
    code="DS711",
    name="overshooting-update",
    severity=Severity.WARNING,
    summary="The next updates of a training run overshoot along the sharpest direction, or its weights run away.",
    documentation=document(
        what_it_flags="""
            In a report on a training run (`dynstab.analyze_training`): the sharpness, for Adam that of the
            preconditioned Hessian, passes 1.15 times the optimiser's threshold (a warning); or over the updates that
            are looked at the weights grow by more than e^3, or small deviations of them by more than e^7 (errors).
            """,
        why_it_matters="""
            Beyond the threshold the quadratic model of the loss says that every update along the sharpest direction
            overshoots by more than the last. What does not come back to the edge by itself ends in NaN.
            """,
        known_problems="""
            Under Adam a weight whose second moment is still tiny raises the ratio a hundredfold for a few updates,
            most of all in the first ones, and gradient descent just beyond its edge is thrown back by itself:
            where the updates that were followed show it, the message says so and the verdict is open. Sharpness
            is that of the batch that the loss holds: a few examples are sharper than the training set. Directions
            of negative curvature grow slowly below any learning rate, which is no overshoot. Momentum adds a
            deviation up before it forgets it, up to 1 / (1 - b) times: hence the wide cut of e^7.
            """,
        example="""
            Gradient descent with a learning rate of 0.1 on a loss whose largest curvature is 30: the threshold is
            2 / 0.1 = 20, and every update multiplies the deviation by 1 - 0.1 * 30 = -2.
            """,
        what_to_do="""
            Lower the learning rate below the threshold, warm it up, or clip; under Adam raise eps or lower beta2 if
            few weights with a tiny second moment are to blame.
            """,
        references=(
            "Cohen et al. (2021), Gradient descent on neural networks typically occurs at the edge of stability, ICLR",
            "Cohen et al. (2022), Adaptive gradient methods at the edge of stability, arXiv:2207.14484",
        ),
    ),
    find=find,
    fires_on=(
        _run(training=_BEYOND),
        _run(training=_BEYOND, every_step={"largest_singular_value": 1.0}),
        _run(training={**_ADAM, "sharpness": 57000.0, "threshold": 38000.0, "ratio": 1.5}),
        _run(signal_rate=0.5),
        _run(gradient_rate=1.0),
    ),
    silent_on=(
        _run(),
        _run(training={**_STABLE, "ratio": 1.1}),
        _run(training={**_STABLE, "ratio": None}),
        _run(gradient_rate=0.4, training=_ADAM, every_step={"rms_gain": 9.0, "relative_gain": 9.0}),
        _run(gradient_rate=-1.0),
        Case(gradient_rate=1.0),
    ),
)
