"""DS502: rectifiers that never open."""

from __future__ import annotations

from collections.abc import Iterator

from dynstab.core.flag import Severity
from dynstab.diagnostics.case import Case
from dynstab.diagnostics.facts import Facts, finite
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.thresholds import ALL_DEAD, CLAIM_SAMPLES, DEAD, SILENT
from dynstab.diagnostics.words import count, percent

_SEVERITIES = {ALL_DEAD: Severity.ERROR, DEAD: Severity.WARNING, SILENT: Severity.INFO}


def find(facts: Facts) -> Iterator[Finding]:
    shares = {step.index: finite(step.dead_fraction) for step in facts.measurements.steps}
    dead = {index: share for index, share in shares.items() if share is not None and share > SILENT}
    if not dead:
        return
    worst = max(dead, key=lambda index: dead[index])
    samples = facts.samples
    threshold = next(cut for cut in (ALL_DEAD, DEAD, SILENT) if dead[worst] > cut)
    yield Finding(
        measure="steps.dead_fraction",
        value=dead[worst],
        threshold=threshold,
        severity=Severity.INFO if samples < CLAIM_SAMPLES else _SEVERITIES[threshold],
        where=facts.place(worst) if len(dead) == 1 else None,
        steps=tuple(sorted(dead)),
        message=f"{percent(dead[worst])} of the rectifiers of {facts.place(worst)} are zero on every input and position"
        f" ({count(len(dead), 'step')} beyond {percent(SILENT)}, {count(samples, 'input')}).",
        evidence={"worst_step": worst, "affected_steps": len(dead), "samples": samples},
        advice=(
            "Lower the learning rate or warm it up: one large update drives biases where no input reaches them.",
            "Start biases at zero and use He initialisation; revive dead units by drawing their weights again.",
            "Use a rectifier with a slope on both sides (leaky ReLU, GELU, SiLU).",
        ),
    )


RULE = Rule(
    code="DS502",
    name="dead-units",
    severity=Severity.WARNING,
    summary="Many rectifiers of a step are zero on every input.",
    documentation=document(
        what_it_flags="""
            More than 25 % of a step's rectifiers (ReLU and its kin) give zero on every input and every
            position: information, a warning beyond 60 %, an error beyond 99 %. Below 8 inputs it is
            information only.
            """,
        why_it_matters="""
            A unit that is zero everywhere has no gradient and does not come back by itself. The layer is
            narrower than it was paid for, and where all units are dead nothing passes at all.
            """,
        known_problems="""
            A few inputs miss units that others open: with m independent inputs a healthy unit looks dead with
            probability 2^-m. Deep in a ReLU network all inputs become parallel, and half of the units look
            dead to all of them. Sparse trained networks keep rare features on purpose; measure on more
            inputs.
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
        Case(steps={3: {"dead_fraction": 0.7}}),
        Case(steps={3: {"dead_fraction": 0.3}}),
        Case(kind="plain", steps={3: {"dead_fraction": 1.0}, 4: {"dead_fraction": 0.3}}),
    ),
    silent_on=(Case(), Case(steps={3: {"dead_fraction": 0.1}}), Case(every_step={"dead_fraction": None})),
)
