"""DS512: a step that loses what the other steps keep: volume, reversibility, a coupling, an antisymmetric field."""

from __future__ import annotations

from collections.abc import Iterator

from dynstab.core.flag import Severity
from dynstab.core.structure import Property, PropertyName, StepDefect
from dynstab.diagnostics.case import Case, number
from dynstab.diagnostics.facts import Facts, finite
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.words import also
from dynstab.diagnostics.words import number as shown

_WORDS: dict[str, tuple[str, str]] = {
    "volume-preserving": ("keep volume", "changes ln of it by"),
    "reversible": ("are additive couplings", "misses one by"),
    "coupling": ("are couplings", "misses one by"),
    "antisymmetric field": ("have an antisymmetric field", "misses it by"),
}


def find(facts: Facts) -> Iterator[Finding]:
    structure = facts.measurements.structure
    if structure is None:
        return
    symplectic = structure.named("symplectic")
    # Where a step is no longer symplectic, that it also lost its volume is no news.
    told = {step.steps for step in symplectic.lost} if symplectic else set()
    for each in structure.properties:
        if each.name in _WORDS and any(step.steps not in told for step in each.lost):
            yield _finding(facts, each)


def _finding(facts: Facts, found: Property) -> Finding:
    keeps, misses = _WORDS[found.name]
    worst = max(found.lost, key=lambda step: finite(step.defect) or 0.0)
    defect = finite(worst.defect) or 0.0
    return Finding(
        measure="structure.properties",
        value=defect,
        threshold=worst.defect.error or 0.0,
        where=facts.place(worst.source) if len(found.lost) == 1 else None,
        steps=tuple(index for step in found.lost for index in step.steps),
        message=f"{found.kept} of {len(found.steps)} steps {keeps} to rounding, {facts.place(worst.source)} {misses} "
        f"{shown(defect)}{also(len(found.lost))}.",
        evidence={"property": found.name, "kept": found.kept, "of": len(found.steps)},
        advice=("Look at what this step does beside the others: a normalisation, a scale, a free weight.",),
    )


def _property(name: PropertyName, lost: float | None) -> Property:
    defects = [0.0] * 11 + [0.0 if lost is None else lost]
    steps = tuple(
        StepDefect(source=i, target=i + 1, defect=number(defect), kept=defect == 0) for i, defect in enumerate(defects)
    )
    return Property(name=name, steps=steps)


RULE = Rule(
    code="DS512",
    name="broken-structure",
    severity=Severity.WARNING,
    summary="A step loses the volume, the coupling or the antisymmetric field that most steps keep to rounding.",
    documentation=document(
        what_it_flags="""
            More than half of the steps keep one of four structures to rounding and some step does not: |det J| = 1;
            an additive coupling y1 = x1 + F(x2), y2 = x2 + G(y1); a coupling that passes some entries x_P on and maps
            each other one by a scale and a shift that x_P alone sets (RealNVP, Glow, NICE with any mask); a field
            J - I that is antisymmetric, up to a damping and to a positive diagonal factor (the slope of an activation).
            """,
        why_it_matters="""
            Each is a promise about the whole stack: densities that transform without a determinant, activations that
            need not be stored, a ln |det J| that is a sum of scales, eigenvalues that neither grow nor decay. One step
            breaks it: a flow then reports densities that are not its own.
            """,
        known_problems="""
            What a network means to keep is read off its steps: one that keeps it nowhere is not flagged. A step that
            is different on purpose (a transition between stages) is flagged all the same. Two affine couplings in one
            step, or one behind a dense mixing of the entries (Glow's 1 x 1 convolution), are not seen as couplings.
            """,
        example="""
            Twelve RevNet blocks of which one scales its output: 11 keep volume, one changes ln of it by 0.4. Six
            RealNVP layers of which one adds 0.3 sin(x2) to the half that should pass: it misses a coupling by 0.1.
            """,
        what_to_do="""
            Bring the step in line with the others, or put it outside of the stack that relies on the structure.
            """,
        references=(
            "Gomez, Ren, Urtasun & Grosse (2017), The reversible residual network, NeurIPS",
            "Chang, Chen, Haber & Chi (2019), AntisymmetricRNN, ICLR",
            "Dinh, Krueger & Bengio (2015), NICE: non-linear independent components estimation, ICLR workshop",
            "Dinh, Sohl-Dickstein & Bengio (2017), Density estimation using Real NVP, ICLR",
        ),
    ),
    find=find,
    fires_on=tuple(
        Case(structure={"properties": (_property(name, 0.4),)})
        for name in ("volume-preserving", "reversible", "coupling", "antisymmetric field")
    ),
    silent_on=(Case(), Case(structure={"properties": (_property("reversible", None),)})),
)
