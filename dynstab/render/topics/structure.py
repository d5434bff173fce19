"""What the network preserves, and by how much it misses it."""

from __future__ import annotations

from collections.abc import Iterator

from dynstab.core.estimate import Estimate
from dynstab.core.report import Report
from dynstab.core.structure import Property, Structure
from dynstab.render.topics import Topic, TopicTable

ORDER = 40

_MEANINGS = {
    "symplectic": "‖JᵀΩJ − Ω‖ / ‖Ω‖",
    "Hamiltonian field": "asymmetry of ΩA, A = J − I or that of the flow",
    "antisymmetric field": "symmetric share of A = J − I or that of the flow",
    "reversible": "distance from an additive coupling",
    "coupling": "distance from y = exp(s(x₁)) x₂ + t(x₁), x₁ passed on",
    "volume-preserving": "|ln |det J||",
}


def topic(report: Report) -> Topic | None:
    structure = report.measurements.structure
    if structure is None or not structure.properties:
        return None
    return Topic(
        title="Structure",
        remark="what most steps keep to rounding",
        facts=tuple(_facts(structure)),
        remarks=(*_kinds(structure), *((f"{each.name} defect", _MEANINGS[each.name]) for each in structure.properties)),
        tables=(
            TopicTable(
                title="0 is perfect",
                heads=("property", "kept by", "largest defect"),
                rows=tuple(_row(each) for each in structure.properties),
            ),
        ),
    )


def _facts(structure: Structure) -> Iterator[tuple[str, Estimate, str]]:
    names, couplings = {each.name for each in structure.properties}, structure.couplings
    if "symplectic" in names:
        yield "pairing of the exponents", structure.pairing, structure.pairing.unit
    if couplings is not None:
        yield "ln |det J| of the couplings", couplings.log_determinant, "nat"
        yield "distance from dense LU, per step", couplings.determinant_gap, "nat"
    if names & {"reversible", "coupling"}:
        yield "error of running it back", structure.reconstruction, ""


def _kinds(structure: Structure) -> Iterator[tuple[str, str]]:
    if structure.couplings is not None:
        found = structure.couplings
        counts = {"affine": found.affine, "additive": found.additive, "triangular but neither": found.other}
        yield "couplings", ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    if structure.reconstruction.measured:
        yield "run back", structure.reconstruction.method


def _row(found: Property) -> tuple[str | Estimate, ...]:
    worst = max(found.steps, key=lambda step: step.defect.value or 0.0)
    return found.name, f"{found.kept} of {len(found.steps)}", worst.defect
