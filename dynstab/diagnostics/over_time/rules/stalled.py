"""DS706: a group of parameters does not move any more."""

from __future__ import annotations

import math

import numpy as np

from dynstab.core.flag import Severity
from dynstab.core.run import Signal
from dynstab.diagnostics.over_time.case import RunCase
from dynstab.diagnostics.over_time.history import History
from dynstab.diagnostics.over_time.rule import RuleOverTime
from dynstab.diagnostics.rule import Finding, document
from dynstab.diagnostics.words import count

RECORDS = 50
"""Records in a row without any change of the weights, of those in which it was taken."""


def find(history: History) -> Finding | None:
    still = _still(history)
    if not still:
        return None
    signal, where = history.signals[-1], history.group(still[0])
    resting = [each for each in history.signals if each.update_norm and each.update_norm[still[0]] == 0]
    since = resting[-RECORDS].step
    gradient = signal.gradient_norm[still[0]] if signal.gradient_norm else math.nan
    cause = "its gradient is zero" if gradient == 0 else "its updates are lost in rounding"
    more = f", and those of {count(len(still) - 1, 'other group')}" if len(still) > 1 else ""
    return Finding(
        measure="signals.update_norm",
        value=0.0,
        threshold=0.0,
        where=where,
        message=f"The weights of {where}{more} have not changed since step {since}: {cause}.",
        evidence={"since": since, "gradient_norm": gradient, "groups": still},
        advice=(
            "If the gradient is zero: look for dead units, a detach, or underflow in half precision (scale the loss).",
            "If it is not: keep a float32 copy of the weights, or raise the learning rate.",
            "Take groups that are meant to rest out of the optimizer, or freeze them by requires_grad_(False).",
        ),
    )


def _still(history: History) -> list[int]:
    """Groups whose last updates were all exactly zero."""
    if history.update.count < RECORDS or not (history.update.last == -math.inf).any():
        return []
    columns = [column[~np.isnan(column)][-RECORDS:] for column in history.update.rows.T]
    return [i for i, taken in enumerate(columns) if len(taken) == RECORDS and bool((taken == -math.inf).all())]


RULE = RuleOverTime(
    code="DS706",
    name="stalled",
    severity=Severity.WARNING,
    summary="A group of parameters has stopped moving.",
    documentation=document(
        what_it_flags="""
            For 50 records in a row at a learning rate above zero, no weight of a group that is to be trained has
            changed at all.
            """,
        why_it_matters="""
            Either no gradient arrives, because it underflows, is cut off or meets dead units, or the updates are
            smaller than the spacing of the numbers that hold the weights. The rest of the network trains around it.
            """,
        known_problems="""
            Large groups are watched by a sample of their weights: rows of an embedding that never occur may rest.
            """,
        example="""
            A linear layer in bfloat16 whose updates are a thousandth of its weights: bfloat16 keeps changes from
            a few thousandths on.
            """,
        what_to_do="""
            Where the gradient is zero, find out where it ends (dynstab.analyze shows the gradient along the
            network). Where it is not, keep the weights in float32.
            """,
        references=("Micikevicius et al. (2018), Mixed precision training, ICLR",),
    ),
    reads=Signal,
    find=find,
    quiet=50,
    fires_on=(
        RunCase(signal=lambda step: {"update_norm": (0.01, 0.01, 0.01, 0.01, 0.0)} if step > 100 else {}),
        RunCase(signal=lambda step: {"update_norm": (math.nan if step % 2 else 0.0,) * 5}),
    ),
    silent_on=(
        RunCase(),
        RunCase(signal=lambda step: {"update_norm": (0.0,) * 5} if step % 40 else {}),
        RunCase(signal=lambda step: {"update_norm": (math.nan if step % 2 else 0.0,) * 5}, steps=90),
        RunCase(signal=lambda step: {"learning_rate": 0.0, "update_norm": (0.0,) * 5}),
    ),
)
