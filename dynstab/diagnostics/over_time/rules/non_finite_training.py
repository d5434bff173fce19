"""DS701: a NaN or an infinity in the loss, the activations or the gradients of a training run."""

from __future__ import annotations

import math

from dynstab.core.flag import Severity
from dynstab.core.run import Signal
from dynstab.diagnostics.over_time.case import RunCase
from dynstab.diagnostics.over_time.history import History
from dynstab.diagnostics.over_time.rule import RuleOverTime
from dynstab.diagnostics.rule import Finding, document
from dynstab.diagnostics.words import number, percent


def find(history: History) -> Finding | None:
    signal = history.signals[-1]
    bad_places = [i for i, share in enumerate(signal.nonfinite_fraction) if share > 0]
    bad_groups = _non_finite(signal.gradient_norm)
    lost = signal.loss is not None and not math.isfinite(signal.loss)
    if not (lost or bad_places or bad_groups):
        return None
    if bad_places:
        where, share = history.place(bad_places[0]), signal.nonfinite_fraction[bad_places[0]]
        what = (
            f"of the blocks heard at this step {where} is the first whose activations are not finite "
            f"({percent(share)} of them), so that they arose there or before it"
        )
    elif bad_groups:
        where, share = history.group(bad_groups[0]), 1.0
        what = f"of the groups read at this step {where} is the first whose gradient is not finite"
    else:
        where, share, what = "network", 1.0, "all watched activations and gradients are finite"
    loss = f"The loss is {number(signal.loss or 0.0)}" if lost else "The loss is still finite"
    return Finding(
        measure="signals.loss" if lost else "signals.nonfinite_fraction",
        value=share,
        threshold=0.0,
        severity=Severity.ERROR if lost else Severity.WARNING,
        where=where,
        message=f"{loss} at step {signal.step}: {what}.",
        evidence={
            "since": signal.step,
            "loss": signal.loss,
            "places": len(bad_places),
            "groups": len(bad_groups),
        },
        advice=(
            _LOST if lost else _NOT_YET,
            "Lower the learning rate, clip the norm of the gradient, and look at the flags just before.",
            "In float16, scale the loss (torch.amp.GradScaler), or train in bfloat16.",
        ),
    )


_LOST = "Go back to the last checkpoint before this step: weights and optimizer state hold no information now."
_NOT_YET = (
    "Under a gradient scaler (torch.amp.GradScaler) nothing is lost: it skips such a step and lowers its scale. "
    "Without one the step was taken: go back to the last checkpoint before it."
)


def _non_finite(norms: tuple[float, ...]) -> list[int]:
    """Groups whose norm was taken and is infinite or NaN."""
    return [i for i, norm in enumerate(norms) if not math.isfinite(norm)]


def _lost(step: int) -> dict[str, object]:
    return {"loss": math.nan, "nonfinite_fraction": (0.0, 0.5, 1.0)} if step >= 150 else {}


def _overflow(step: int) -> dict[str, object]:
    return {"gradient_norm": (0.3, 0.3, math.inf, 0.3, 0.3)} if step == 100 else {}


RULE = RuleOverTime(
    code="DS701",
    name="non-finite-training",
    severity=Severity.ERROR,
    summary="A NaN or an infinity in the loss, the activations or the gradients.",
    documentation=document(
        what_it_flags="""
            The loss of a training step is NaN or infinite (an error), or some activation or gradient is while the
            loss is not yet (a warning). A quarter of the blocks is heard at each step: of these, the first in the
            order of the forward pass is named, and what is not finite arose there or before it.
            """,
        why_it_matters="""
            One step with a NaN gradient writes NaN into the weights and into the optimizer's state, and no later
            step takes it out again.
            """,
        known_problems="""
            Loss scaling finds its scale by overflowing now and then: a single infinite gradient under
            torch.amp.GradScaler is skipped and harmless. Blocks that return a mask of -inf are reported too.
            """,
        example="""
            A transformer in float16 whose attention logits pass 65504 after a spike of the learning rate.
            """,
        what_to_do="""
            Return to a checkpoint before the step that is named, and look at what was flagged before it: a spike of
            a gradient or of an update, or sharpness beyond the optimizer's threshold.
            """,
        references=("Micikevicius et al. (2018), Mixed precision training, ICLR",),
    ),
    reads=Signal,
    find=find,
    quiet=50,
    fires_on=(RunCase(signal=_lost), RunCase(signal=_overflow)),
    silent_on=(RunCase(), RunCase(signal=lambda step: {"gradient_norm": ()} if step % 2 else {})),
)
