"""DS502: rectifiers that never open."""

from __future__ import annotations

from collections.abc import Iterator

from dynstab.core.flag import Severity
from dynstab.diagnostics.case import Case
from dynstab.diagnostics.facts import Facts, finite
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.thresholds import ALL_DEAD, CLAIM_SAMPLES, DEAD
from dynstab.diagnostics.words import count, percent


def find(facts: Facts) -> Iterator[Finding]:
    shares = {step.index: finite(step.dead_fraction) for step in facts.measurements.steps}
    dead = {index: share for index, share in shares.items() if share is not None and share > DEAD}
    if not dead:
        return
    worst = max(dead, key=lambda index: dead[index])
    samples = next(step.dead_fraction.samples for step in facts.measurements.steps if step.index == worst)
    blocked = dead[worst] > ALL_DEAD
    yield Finding(
        measure="steps.dead_fraction",
        value=dead[worst],
        threshold=ALL_DEAD if blocked else DEAD,
        severity=_severity(blocked, samples),
        where=facts.place(worst) if len(dead) == 1 else None,
        steps=tuple(sorted(dead)),
        message=f"{percent(dead[worst])} of the rectifiers of {facts.place(worst)} are zero on every input and position"
        f" ({count(len(dead), 'step')} beyond {percent(DEAD)}, {count(samples, 'input')}).",
        evidence={"worst_step": worst, "affected_steps": len(dead), "samples": samples},
        advice=(
            "Lower the learning rate or warm it up: one large update drives biases where no input reaches them.",
            "Start biases at zero and use He initialisation; revive dead units by drawing their weights again.",
            "Use a rectifier with a slope on both sides (leaky ReLU, GELU, SiLU).",
        ),
    )


def _severity(blocked: bool, samples: int) -> Severity:
    if samples < CLAIM_SAMPLES:
        return Severity.INFO
    return Severity.ERROR if blocked else Severity.WARNING


RULE = Rule(
    code="DS502",
    name="dead-units",
    severity=Severity.WARNING,
    summary="Many rectifiers of a step are zero on every input.",
    documentation=document(
        what_it_flags="""
            More than 25 % of a step's rectifiers (ReLU and its kin) give zero on every input and every
            position; an error where more than 99 % do. Below 8 inputs it is information only.
            """,
        why_it_matters="""
            A unit that is zero everywhere has no gradient and does not come back by itself. The layer is
            narrower than it was paid for, and where all units are dead nothing passes at all.
            """,
        known_problems="""
            A few inputs miss units that others open: with m independent inputs a healthy unit looks dead with
            probability 2^-m. Sparse trained networks keep rare features on purpose; measure on more inputs.
            """,
        example="""
            A ReLU network after a learning rate that was too large: biases of -3, and 70 % of the units
            silent.
            """,
        what_to_do="""
            Lower the learning rate, initialise again, or use a rectifier with a slope on both sides.
            """,
        references=(
            "Lu, Shin, Su & Karniadakis (2020), Dying ReLU and initialization, Commun. Comput. Phys. 28",
            "Maas, Hannun & Ng (2013), Rectifier nonlinearities improve neural network acoustic models, ICML workshop",
        ),
    ),
    find=find,
    fires_on=(
        Case(steps={3: {"dead_fraction": 0.6}}),
        Case(kind="plain", steps={3: {"dead_fraction": 1.0}, 4: {"dead_fraction": 0.3}}),
    ),
    silent_on=(Case(), Case(steps={3: {"dead_fraction": 0.1}}), Case(every_step={"dead_fraction": None})),
)
