"""DS511: a Hamiltonian network with steps that are not symplectic."""

from __future__ import annotations

from collections.abc import Iterator

from dynstab.core.flag import Severity
from dynstab.core.structure import Property, StepDefect
from dynstab.diagnostics.case import Case, number
from dynstab.diagnostics.facts import Facts, finite
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.thresholds import SYMPLECTIC_DRIFT
from dynstab.diagnostics.words import also
from dynstab.diagnostics.words import number as shown


def find(facts: Facts) -> Iterator[Finding]:
    structure = facts.measurements.structure
    symplectic = structure.named("symplectic") if structure else None
    if symplectic is None or not symplectic.lost:
        return
    lost = [(finite(step.defect) or 0.0, step) for step in symplectic.lost]
    defect, worst = max(lost, key=lambda pair: pair[0])
    place, total = facts.place(worst.source), sum(size for size, _ in lost)
    # Kept by most, it is meant; else the field asks for it.
    field = 2 * symplectic.kept <= len(symplectic.steps)
    yield Finding(
        measure="structure.properties",
        value=defect,
        threshold=worst.defect.error or 0.0,
        where=place if len(lost) == 1 else None,
        steps=tuple(index for _, step in lost for index in step.steps),
        severity=Severity.INFO if field and total <= SYMPLECTIC_DRIFT else None,
        message=(
            f"The field is Hamiltonian but its steps are not symplectic: {place} misses by {shown(defect)}, all steps "
            f"together by up to {shown(total)}."
            if field
            else f"{symplectic.kept} of {len(symplectic.steps)} steps are symplectic to rounding, {place} misses by "
            f"{shown(defect)}{also(len(lost))}."
        ),
        evidence={"kept": symplectic.kept, "of": len(symplectic.steps), "sum": total},
        advice=_FOR_A_FIELD if field else _FOR_A_STEP,
    )


_FOR_A_FIELD = (
    "Update the halves in turn (symplectic Euler, leapfrog): the second with the new value of the first.",
    "With a solver that is not symplectic take smaller steps, or a tighter tolerance: the defect falls with its order.",
)
_FOR_A_STEP = ("Look at what this step does beside the update: a normalisation, a scale, weights that are not tied.",)


def _property(defects: tuple[float, ...], limit: float = 1e-5) -> Property:
    steps = tuple(
        StepDefect(source=i, target=i + 1, defect=number(defect), kept=defect <= limit)
        for i, defect in enumerate(defects)
    )
    return Property(name="symplectic", steps=steps)


RULE = Rule(
    code="DS511",
    name="broken-symplecticity",
    severity=Severity.WARNING,
    summary="Most steps are symplectic, or the field is Hamiltonian, but some step is not symplectic.",
    documentation=document(
        what_it_flags="""
            With W = [[0, I], [-I, 0]] on the two halves of the state, ||J^T W J - W|| / ||W|| is above rounding
            in some step although it is rounding in most, or although the field A is Hamiltonian in most (W A symmetric;
            A = J - I, or the Jacobian of a flow's own field). A remark where all defects on a Hamiltonian field
            together stay below a thousandth, as those of an accurate solver do.
            """,
        why_it_matters="""
            A symplectic network has singular values in reciprocal pairs: no gradient can vanish without another
            one growing, and volume is kept at any depth. One step that is not symplectic ends that, and explicit
            Euler on a Hamiltonian field drifts by the square of the step at every layer.
            """,
        known_problems="""
            What a network means to keep is read off its steps; one that keeps the structure nowhere is not
            flagged. The halves are the two tensors of a state or the two halves of its features: other pairings are
            not seen. Nothing is said below about 1e-5 in float32.
            """,
        example="""
            Ten leapfrog layers with a LayerNorm behind the fifth: nine steps at 1e-9, one at 0.7. A Hamiltonian
            network whose halves are updated from the same old state with h = 0.1: about 0.01 at every layer.
            """,
        what_to_do="""
            Update the halves in turn, tie the weights of both half-steps, keep normalisations outside of the stack.
            """,
        references=(
            "Galimberti, Furieri, Xu & Ferrari-Trecate (2023), Hamiltonian deep neural networks, IEEE TAC 68",
            "Hairer, Lubich & Wanner (2006), Geometric numerical integration, Springer, ch. VI",
        ),
    ),
    find=find,
    fires_on=(
        Case(structure={"properties": (_property((1e-8,) * 7 + (0.7,) + (1e-8,) * 4),)}),
        Case(structure={"properties": (_property((0.01,) * 12),)}),
        Case(structure={"properties": (_property((1e-9,) + (2e-6,) * 11, limit=1e-8),)}),
    ),
    silent_on=(Case(), Case(structure={"properties": (_property((1e-8,) * 12),)})),
)
