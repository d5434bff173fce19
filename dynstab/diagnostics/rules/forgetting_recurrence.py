"""DS602: gradients reach back over a small part of the sequence."""

from __future__ import annotations

from collections.abc import Iterator

from dynstab.core.estimate import Estimate, Label
from dynstab.core.flag import Severity
from dynstab.core.time_dynamics import GateUse
from dynstab.diagnostics.case import Case
from dynstab.diagnostics.facts import Facts, at_most, finite
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.thresholds import LOST_MEMORY, SHORT_MEMORY
from dynstab.diagnostics.words import number

_KEEPING = {
    "forget gate": "Start the forget gates open: a bias of 1 or more, or one drawn for the times that matter.",
    "update gate": "Start the update gates where they keep the state: a bias of 1 or more in torch's GRU, which keeps "
    "the share z of its state (others keep 1 - z and want -1), or one drawn for the times that matter.",
}
_OTHER_GATES = "Start the gates where they keep the state: by their bias, far from the middle of the sigmoid."
_GATED = "Start the recurrent weights orthogonal, or use state-space layers, whose state adds up."
_UNGATED = (
    "Start the recurrent weights orthogonal or near the identity, so that their gain is 1 and not far below.",
    "Or use a cell with gates, whose state adds up (LSTM, GRU), or state-space layers.",
)
_SHORTER = "If the task needs no longer memory, shorten the sequences: the earlier steps only cost time."


def find(facts: Facts) -> Iterator[Finding]:
    time = facts.measurements.time
    if time is None or not time.driven or not time.sequence:
        return
    reach, bound = finite(time.reach), at_most(time.reach)
    if reach is None or bound is None or bound >= SHORT_MEMORY * time.sequence:
        return
    share = reach / time.sequence
    half = finite(time.half_life)
    halved = f", halved every {number(half)} steps" if half is not None else ""
    lost = share < LOST_MEMORY
    yield Finding(
        measure="time.reach",
        value=reach,
        threshold=(LOST_MEMORY if lost else SHORT_MEMORY) * time.sequence,
        severity=Severity.WARNING if lost else Severity.INFO,
        where="network",
        message=f"Gradients reach back {number(reach)} of {time.sequence} steps before they fall below a twentieth"
        f"{halved}: what came earlier is hardly learned.",
        evidence={"sequence": time.sequence, "half_life": half, "share": share},
        advice=(*_advice(time.gates), _SHORTER),
    )


def _advice(gates: tuple[GateUse, ...]) -> tuple[str, ...]:
    """What lets this recurrence remember: its gates where it has some, else its recurrent weights."""
    if not gates:
        return _UNGATED
    keeping = [words for name, words in _KEEPING.items() if any(gate.name.startswith(name) for gate in gates)]
    return (*(keeping or [_OTHER_GATES]), _GATED)


RULE = Rule(
    code="DS602",
    name="forgetting-recurrence",
    severity=Severity.WARNING,
    summary="Gradients through time fall below a twentieth within a small part of the sequence.",
    documentation=document(
        what_it_flags="""
            The reach, the number of steps back from the last state after which the gradient stays below a twentieth
            (root mean square over isotropic cotangents), is less than half of the sequence: information. Less
            than a tenth: a warning.
            """,
        why_it_matters="""
            What lies farther back than the reach hardly moves the weights, so that dependencies over longer spans are
            not learned, however well the network could represent them.
            """,
        known_problems="""
            A short memory is right for a task with short dependencies. The loss of every step reaches back, not only
            that of the last: a model that predicts at each step learns from short spans everywhere. Directions of slow
            decay that few cotangents meet are seen by the leading exponent, not by the reach.
            """,
        example="""
            An LSTM as torch initialises it has forget gates near 1/2: its gradient halves at nearly every step and
            reaches back five steps of two hundred.
            """,
        what_to_do="""
            Where there are gates, start those open that keep the state. Where there are none, start the recurrent
            weights orthogonal or near the identity, or use cells whose state adds up. Or shorten the sequences.
            """,
        references=(
            "Bengio, Simard & Frasconi (1994), Learning long-term dependencies with gradient descent is difficult, "
            "IEEE Trans. Neural Networks 5",
            "Le, Jaitly & Hinton (2015), A simple way to initialize recurrent networks of rectified linear units, "
            "arXiv:1504.00941",
            "Jozefowicz, Zaremba & Sutskever (2015), An empirical exploration of recurrent network architectures, ICML",
            "Tallec & Ollivier (2018), Can recurrent neural networks warp time?, ICLR",
        ),
    ),
    find=find,
    fires_on=(
        Case(time="time", kind="plain", dynamics={"reach": 5.0, "half_life": 2.0, "sequence": 200}),
        Case(time="time", kind="plain", dynamics={"reach": 50.0, "half_life": None, "sequence": 200}),
    ),
    silent_on=(
        Case(),
        Case(time="time", kind="plain", dynamics={"reach": 150.0, "sequence": 200}),
        Case(time="time", kind="plain", dynamics={"reach": 5.0, "sequence": 200, "driven": False}),
        Case(time="time", kind="plain", dynamics={"reach": None, "sequence": 200}),
        Case(
            time="time",
            kind="plain",
            dynamics={"reach": Estimate(value=20.0, label=Label.LOWER, unit="steps"), "sequence": 200},
        ),
    ),
)
