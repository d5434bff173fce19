"""DS513: a reversible stack that cannot be run back."""

from __future__ import annotations

from collections.abc import Iterator

from dynstab.core.flag import Severity
from dynstab.diagnostics.case import Case
from dynstab.diagnostics.facts import Facts
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.thresholds import REVERSAL
from dynstab.diagnostics.words import number


def find(facts: Facts) -> Iterator[Finding]:
    structure = facts.measurements.structure
    value = structure.reconstruction.value if structure else None
    if value is None or value <= REVERSAL:
        return
    yield Finding(
        measure="structure.reconstruction",
        value=value,
        threshold=REVERSAL,
        where="network",
        message=f"Run back from its last state, the reversible stack misses its first one by {number(value)} of its "
        f"size in {facts.dtype}.",
        evidence={"dtype": facts.dtype},
        advice=(
            "Store the activations of some blocks, or run the reversible part in a higher precision.",
            "Make the blocks less expansive: rounding grows by their gain on the way back.",
        ),
    )


RULE = Rule(
    code="DS513",
    name="inexact-inverse",
    severity=Severity.WARNING,
    summary="The stack is reversible on paper, but rounding makes its inverse useless.",
    documentation=document(
        what_it_flags="""
            Couplings, additive or affine, are inverted from the last state of the stack to the first one, in the
            precision of the analysis; what comes out differs from the recorded state by more than 1 %.
            """,
        why_it_matters="""
            Training a reversible network without stored activations recomputes them this way. Gradients are then
            taken at states that never were. A normalising flow that cannot be run back draws samples from another
            density than the one it was fitted to.
            """,
        known_problems="""
            The precision is that of the analysis, not that of training: in bfloat16 the error is larger by a factor of
            some 65000.
            """,
        example="""
            Forty couplings of gain 1.6 in float32: rounding of 1e-7 grows by 1.6^40 = 1.5e8 on the way back.
            """,
        what_to_do="""
            Store activations now and then, use a higher precision, or bound the gain of the blocks.
            """,
        references=(
            "Gomez, Ren, Urtasun & Grosse (2017), The reversible residual network, NeurIPS",
            "Behrmann et al. (2021), Understanding and mitigating exploding inverses in invertible networks, AISTATS",
        ),
    ),
    find=find,
    # A recurrence is not run back: its states are stored.
    silent_in=("time",),
    fires_on=(Case(structure={"reconstruction": 0.3}), Case(structure={"reconstruction": float("inf")})),
    silent_on=(Case(), Case(structure={"reconstruction": 1e-6})),
)
