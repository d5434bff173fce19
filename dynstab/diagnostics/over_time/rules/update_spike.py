"""DS704: the optimizer's update of a group of parameters jumps."""

from __future__ import annotations

from dynstab.core.flag import Severity
from dynstab.core.run import Signal
from dynstab.diagnostics.over_time.case import RunCase
from dynstab.diagnostics.over_time.history import History
from dynstab.diagnostics.over_time.jumps import find_jump
from dynstab.diagnostics.over_time.rule import RuleOverTime
from dynstab.diagnostics.rule import Finding, document
from dynstab.diagnostics.words import number, percent

FACTOR, DEVIATIONS = 5.0, 6.0


def find(history: History) -> Finding | None:
    jump = find_jump(history.update, factor=FACTOR, deviations=DEVIATIONS)
    if jump is None:
        return None
    signal, where = history.signals[-1], history.group(jump.index)
    share = signal.update_norm[jump.index] / signal.weight_norm[jump.index]
    return Finding(
        measure="signals.update_norm",
        value=jump.factor,
        threshold=FACTOR,
        where=where,
        message=f"At step {signal.step} the update of {where} moves its weights by {percent(share)}, "
        f"{number(jump.factor)} times what is usual at this learning rate{jump.others}.",
        evidence={"since": signal.step, "update": share, "deviations": jump.deviations, "groups": [*jump.columns]},
        advice=_ADVICE["Adam" if "adam" in (history.info.optimizer or "").lower() else "other"],
    )


_ADVICE = {
    "Adam": (
        "Lower beta2 to 0.95, so that the second moment follows the gradients.",
        "Raise eps towards the root of a typical second moment; in half precision keep the state in float32.",
        "Lower the learning rate, or clip each update to a share of the weights' norm.",
    ),
    "other": (
        "Clip the norm of the gradient.",
        "Lower the learning rate or the momentum.",
    ),
}

RULE = RuleOverTime(
    code="DS704",
    name="update-spike",
    severity=Severity.WARNING,
    summary="The update of a group of parameters jumps to five times what was usual at its learning rate.",
    documentation=document(
        what_it_flags="""
            The norm of an update over that of its weights and over the learning rate is more than five times its
            median over the last 128 records and more than six standard deviations of its logarithm away from it.
            The lowest such group is named.
            """,
        why_it_matters="""
            Adam divides by the root of a second moment that remembers small gradients: after a quiet stretch, or
            where the state underflows in half precision, a step can be many times as long as the learning
            rate promises, at an unremarkable gradient. Lower layers show it first, and the loss follows.
            """,
        known_problems="""
            A scheduler that jumps is taken into account only where the monitor knows the optimizer. Under plain
            SGD this repeats what gradient-spike says. A group whose weights start at zero has large ratios at first.
            """,
        example="""
            A patch embedding whose Adam update grows from 0.1 % to 3 % of its weights at one step, twenty steps
            before the loss spikes.
            """,
        what_to_do="""
            Lower beta2, raise eps, clip updates, or lower the learning rate of the group that is named.
            """,
        references=(
            "Wortsman et al. (2023), Stable and low-precision training for large-scale vision-language models, NeurIPS",
            "Molybog et al. (2023), A theory on Adam instability in large-scale machine learning, arXiv:2304.09871",
        ),
    ),
    reads=Signal,
    find=find,
    quiet=50,
    fires_on=(RunCase(signal=lambda step: {"update_norm": (0.5, 0.01, 0.01, 0.01, 0.01)} if step == 120 else {}),),
    silent_on=(
        RunCase(),
        RunCase(
            signal=lambda step: (
                {"learning_rate": 1e-3 * (step + 1) / 100, "update_norm": (0.01 * (step + 1) / 100,) * 5}
                if step < 100
                else {}
            )
        ),
    ),
)
