"""DS404: pre-activations exactly at a kink."""

from __future__ import annotations

from collections.abc import Iterator

from dynstab.core.flag import Severity
from dynstab.diagnostics.case import Case
from dynstab.diagnostics.facts import Facts, finite
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.thresholds import KINK, MANY_KINKS
from dynstab.diagnostics.words import also, percent


def find(facts: Facts) -> Iterator[Finding]:
    shares = {step.index: finite(step.kink_fraction) for step in facts.measurements.steps}
    kinked = {index: share for index, share in shares.items() if share is not None and share > KINK}
    if not kinked:
        return
    worst = max(kinked, key=lambda index: kinked[index])
    many = kinked[worst] > MANY_KINKS
    yield Finding(
        measure="steps.kink_fraction",
        value=kinked[worst],
        threshold=MANY_KINKS if many else KINK,
        severity=Severity.WARNING if many else Severity.INFO,
        where=facts.place(worst) if len(kinked) == 1 else None,
        steps=tuple(sorted(kinked)),
        message=f"{percent(kinked[worst])} of the pre-activations of {facts.place(worst)} lie exactly at a kink, "
        f"where the derivative is a convention{also(len(kinked))}.",
        evidence={"worst_step": worst, "affected_steps": len(kinked)},
        advice=(
            "Read the gains of these steps as one choice among several; analyse again after a few training steps.",
            "If a normalisation or a last layer starts at zero, this is expected and goes away with training.",
        ),
    )


RULE = Rule(
    code="DS404",
    name="kinked-derivative",
    severity=Severity.INFO,
    summary="Many pre-activations lie exactly at a kink, where the derivative is not defined.",
    documentation=document(
        what_it_flags="""
            More than 1 % of the inputs of a step's piecewise linear activations are exactly at a kink (0 for
            ReLU): information, a warning beyond 10 %.
            """,
        why_it_matters="""
            At a kink the derivative is whatever the framework chose, for ReLU 0. Gains, exponents and null
            spaces of such a step describe that choice; the other one can differ by a factor 2.
            """,
        known_problems="""
            Normalisations and last layers that start at zero put whole branches at the kink by design. Zero
            padding and a ReLU of what a ReLU has already passed do so too.
            """,
        example="""
            A ResNet at initialisation with zero-init residual: the ReLU after the addition sees the zeros of
            the ReLU before, half of its inputs.
            """,
        what_to_do="""
            Analyse again after a few steps of training, or start the zeros at a small value.
            """,
        references=(
            "Clarke (1983), Optimization and nonsmooth analysis, Wiley",
            "Bertoin, Bolte, Gerchinovitz & Pauwels (2021), Numerical influence of ReLU'(0), NeurIPS",
        ),
    ),
    find=find,
    fires_on=(Case(steps={3: {"kink_fraction": 0.5}}), Case(every_step={"kink_fraction": 0.02})),
    silent_on=(Case(), Case(every_step={"kink_fraction": 0.005}), Case(every_step={"kink_fraction": None})),
)
