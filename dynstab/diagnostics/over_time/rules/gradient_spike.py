"""DS703: the gradient of a group of parameters jumps."""

from __future__ import annotations

from dynstab.core.flag import Severity
from dynstab.core.run import Signal
from dynstab.diagnostics.over_time.case import RunCase
from dynstab.diagnostics.over_time.history import History
from dynstab.diagnostics.over_time.jumps import find_jump
from dynstab.diagnostics.over_time.rule import RuleOverTime
from dynstab.diagnostics.rule import Finding, document
from dynstab.diagnostics.words import number

FACTOR, DEVIATIONS = 10.0, 6.0
"""Gradients of small batches scatter by a factor of three and more: a jump is ten times the median."""


def find(history: History) -> Finding | None:
    jump = find_jump(history.gradient, factor=FACTOR, deviations=DEVIATIONS)
    if jump is None or history.taking_off:
        return None
    step, where = history.signals[-1].step, history.group(jump.index)
    return Finding(
        measure="signals.gradient_norm",
        value=jump.factor,
        threshold=FACTOR,
        where=where,
        message=f"The gradient of {where} jumps to {number(jump.factor)} times its median at step {step}{jump.others}.",
        evidence={"since": step, "deviations": jump.deviations, "groups": [*jump.columns]},
        advice=(
            "Clip the norm of the gradient at a few times its median.",
            "Lower the learning rate, or warm it up for longer.",
            "If one batch causes it, look at that batch.",
        ),
    )


RULE = RuleOverTime(
    code="DS703",
    name="gradient-spike",
    severity=Severity.WARNING,
    summary="The gradient of a group of parameters jumps to ten times what was usual.",
    documentation=document(
        what_it_flags="""
            The norm of a group's gradient is more than ten times its median over the last 128 records and more than
            six standard deviations of its logarithm away from it. The lowest such group is named.
            """,
        why_it_matters="""
            A gradient that jumps moves the weights by as much under SGD, and under Adam fills the second moment
            with a value that keeps later steps small. A jump that starts in one block and spreads is the usual
            beginning of a divergence.
            """,
        known_problems="""
            Batches of a few examples have gradients with heavy tails. While the loss falls by a tenth within twenty
            steps, as where a network leaves its first plateau, gradients grow by learning and nothing is said.
            Norms are read before clipping where the monitor knows the optimizer, or else as the loop leaves them.
            A quarter of the groups is read at each step: what jumps for one step in one group alone may be missed.
            """,
        example="""
            A recurrent network whose gradient is 0.5 for a thousand steps and 40 at the next.
            """,
        what_to_do="""
            Clip the gradient. If jumps return, lower the learning rate or look at the sharpness: rates near the
            threshold of stability show themselves as bursts of the gradient first.
            """,
        references=(
            "Pascanu, Mikolov & Bengio (2013), On the difficulty of training recurrent neural networks, ICML",
            "Cohen et al. (2021), Gradient descent on neural networks typically occurs at the edge of stability, ICLR",
        ),
    ),
    reads=Signal,
    find=find,
    quiet=50,
    fires_on=(RunCase(signal=lambda step: {"gradient_norm": (0.3, 9.0, 8.0, 0.3, 0.3)} if step == 120 else {}),),
    silent_on=(
        RunCase(),
        RunCase(signal=lambda step: {"gradient_norm": (0.3 + 0.9 * (step % 7 == 0),) * 5}),
        RunCase(signal=lambda step: {"gradient_norm": ()}),
    ),
)
