"""DS705: the activations of a block jump."""

from __future__ import annotations

from dynstab.core.flag import Severity
from dynstab.core.run import Signal
from dynstab.diagnostics.over_time.case import RunCase
from dynstab.diagnostics.over_time.history import History
from dynstab.diagnostics.over_time.jumps import find_jump
from dynstab.diagnostics.over_time.rule import RuleOverTime
from dynstab.diagnostics.rule import Finding, document
from dynstab.diagnostics.thresholds import RANGES
from dynstab.diagnostics.words import number

FACTOR, DEVIATIONS = 5.0, 6.0

NEAR = 1e3
"""An RMS within this factor of the dtype's largest number: the largest entries are some hundred times the RMS."""


def find(history: History) -> Finding | None:
    signal = history.signals[-1]
    jump = find_jump(history.activation, factor=FACTOR, deviations=DEVIATIONS)
    if jump is None:
        return None
    where, rms = history.place(jump.index), signal.activation_rms[jump.index]
    limit = RANGES[history.info.dtype].largest if history.info.dtype in RANGES else float("inf")
    near = f", within a factor {number(limit / rms)} of what {history.info.dtype} holds" if rms * NEAR > limit else ""
    return Finding(
        measure="signals.activation_rms",
        value=jump.factor,
        threshold=FACTOR,
        where=where,
        message=f"The activations of {where} jump to {number(jump.factor)} times their median at step "
        f"{signal.step}{jump.others}{near}.",
        evidence={"since": signal.step, "rms": rms, "deviations": jump.deviations, "places": [*jump.columns]},
        advice=(
            "Look at the last updates of this block and of those below it.",
            "Lower the learning rate, or normalise the input of the block.",
            "Decay the weights of the block, or cap what grows (attention logits, the output's scale).",
        ),
    )


RULE = RuleOverTime(
    code="DS705",
    name="activation-spike",
    severity=Severity.WARNING,
    summary="The activations of a block jump to five times what was usual.",
    documentation=document(
        what_it_flags="""
            The RMS of a block's output is more than five times its median over the last 128 records and more than six
            standard deviations of its logarithm away from it. The first such block of the forward pass is named.
            """,
        why_it_matters="""
            Activations depend on weights alone once the data are fixed in kind: where they jump, the weights
            have moved far, and the loss, shielded by normalisation layers, may not show it yet.
            """,
        known_problems="""
            Inputs of very different scale, such as images that were not normalised, move all blocks at once.
            A quarter of the blocks is heard at each step: a jump is told up to three steps late.
            """,
        example="""
            The residual stream of a transformer that grows sixfold within ten steps of a learning rate that was raised.
            """,
        what_to_do="""
            Return to a checkpoint before the step, lower the learning rate, and see which block moved first.
            """,
        references=(
            "Takase et al. (2023), Spike no more: Stabilizing the pre-training of large language models, "
            "arXiv:2312.16903",
        ),
    ),
    reads=Signal,
    find=find,
    quiet=50,
    fires_on=(RunCase(signal=lambda step: {"activation_rms": (1.0, 1.0, 12.0)} if step > 120 else {}),),
    silent_on=(RunCase(), RunCase(signal=lambda step: {"activation_rms": (1.0 + step / 50,) * 3})),
)
