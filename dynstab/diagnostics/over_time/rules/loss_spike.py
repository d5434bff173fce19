"""DS702: the loss jumps."""

from __future__ import annotations

import math
import sys

from dynstab.core.flag import Severity
from dynstab.core.run import Signal
from dynstab.diagnostics.over_time.case import RunCase
from dynstab.diagnostics.over_time.history import History
from dynstab.diagnostics.over_time.jumps import SMALLEST_SCATTER, WARM_UP
from dynstab.diagnostics.over_time.rule import RuleOverTime
from dynstab.diagnostics.over_time.series import RECENT
from dynstab.diagnostics.rule import Finding, document
from dynstab.diagnostics.words import number

FACTOR = 2.0
"""Of the usual loss, where that is positive."""

DEVIATIONS = 8.0
"""Beyond the scatter of the last losses."""

DOUBLED = 2.0
"""The mean of the last losses over the lowest such mean: beyond here the run diverges."""


def find(history: History) -> Finding | None:
    signal = history.signals[-1]
    if history.loss.count < WARM_UP or signal.loss is None or not math.isfinite(signal.loss):
        return None
    usual, scatter = (float(each[0]) for each in history.loss.usual())
    lowest, recent = history.lowest_loss, history.recent_loss
    if lowest > 0 and recent > DOUBLED * lowest and _bulk_has_risen(history, lowest, usual, scatter):
        return _diverged(signal, recent, lowest)
    # One bad batch is no spike of the weights: two in a row are.
    least = min(history.last_losses[-2:])
    if not least > max(FACTOR * usual, usual + DEVIATIONS * scatter):
        return None
    deviations = (least - usual) / max(scatter, SMALLEST_SCATTER * abs(usual), sys.float_info.min)
    if not deviations > DEVIATIONS:
        return None
    return Finding(
        measure="signals.loss",
        value=least,
        threshold=max(usual + DEVIATIONS * scatter, FACTOR * usual if usual > 0 else -math.inf),
        where="network",
        message=f"The loss has jumped to {number(signal.loss)} at step {signal.step}, from a median of "
        f"{number(usual)}, and stays: two steps in a row lie {number(deviations)} standard deviations above it.",
        evidence={"since": signal.step, "median": usual, "scatter": scatter, "deviations": deviations},
        advice=(
            "See whether the batch of this step is sound, and whether a gradient or an update jumped before it.",
            "Clip the norm of the gradient, or lower the learning rate.",
            "Under Adam, lower beta2 to 0.95 or raise eps: its second moment follows a sudden change too slowly.",
        ),
    )


def _bulk_has_risen(history: History, lowest: float, usual: float, scatter: float) -> bool:
    """Near zero single batches double by chance: the median of ten must have doubled, beyond their scatter."""
    middle = float(history.loss.recent()[0])
    return middle > DOUBLED * lowest and middle - usual > DEVIATIONS * scatter / math.sqrt(RECENT)


def _diverged(signal: Signal, recent: float, lowest: float) -> Finding:
    return Finding(
        measure="signals.loss",
        value=recent,
        threshold=DOUBLED * lowest,
        severity=Severity.ERROR,
        where="network",
        message=f"The loss is {number(recent)} on average over the last ten steps up to step {signal.step}, "
        f"{number(recent / lowest)} times its lowest: the run diverges.",
        evidence={"since": signal.step, "recent": recent, "lowest": lowest},
        advice=(
            "Go back to a checkpoint from before the first flag of this run, with a lower learning rate.",
            "Clip the norm of the gradient and warm the learning rate up for longer.",
        ),
    )


RULE = RuleOverTime(
    code="DS702",
    name="loss-spike",
    severity=Severity.WARNING,
    summary="The loss jumps far above what was usual, or has doubled.",
    documentation=document(
        what_it_flags="""
            Two losses in a row above twice the median of the last 128 and more than eight standard deviations
            beyond it (by the median absolute deviation). It is an error once the last ten losses, in the mean and
            in the median, are twice the lowest such mean of the run, and their median lies eight standard errors
            beyond the usual.
            """,
        why_it_matters="""
            Most spikes pass, at the price of the steps that they undo; some never do. What matters is what came
            before: the other rules over time name it.
            """,
        known_problems="""
            A curriculum, a change of the data or of the loss's weights looks like a spike. Losses
            whose scatter is not stationary may double by chance.
            """,
        example="""
            A language model whose loss jumps from 2.4 to 7 after a stretch of small gradients, and recovers over a
            few hundred steps.
            """,
        what_to_do="""
            Read the flags of the hundred steps before. Without any, look at the batch. Otherwise return to a
            checkpoint before, clip the gradient, lower the rate or beta2, and skip the batches concerned.
            """,
        references=(
            "Chowdhery et al. (2022), PaLM: Scaling language modeling with pathways, section 5.1",
            "Molybog et al. (2023), A theory on Adam instability in large-scale machine learning, arXiv:2304.09871",
        ),
    ),
    reads=Signal,
    find=find,
    quiet=50,
    fires_on=(
        RunCase(signal=lambda step: {"loss": 7.0} if step in (150, 151) else {}),
        RunCase(signal=lambda step: {"loss": 1.0 * 1.02 ** (step - 100)} if step > 100 else {}),
    ),
    silent_on=(
        RunCase(),
        RunCase(signal=lambda step: {"loss": 7.0} if step == 150 else {}),
        RunCase(signal=lambda step: {"loss": -100.0 - step}),
        RunCase(signal=lambda step: {"loss": None}),
    ),
)
