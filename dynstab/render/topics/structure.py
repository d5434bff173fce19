"""What the network preserves, and by how much it misses it."""

from __future__ import annotations

from dynstab.core.estimate import Estimate
from dynstab.core.report import Report
from dynstab.core.structure import Property
from dynstab.render.topics import Topic, TopicTable

ORDER = 40

_MEANINGS = {
    "symplectic": "‖JᵀΩJ − Ω‖ / ‖Ω‖",
    "Hamiltonian field": "asymmetry of Ω(J − I)",
    "antisymmetric field": "symmetric share of J − I",
    "reversible": "distance from an additive coupling",
    "volume-preserving": "|ln |det J||",
}


def topic(report: Report) -> Topic | None:
    structure = report.measurements.structure
    if structure is None or not structure.properties:
        return None
    facts = [
        ("pairing of the exponents", structure.pairing, structure.pairing.unit),
        ("error of running it back", structure.reconstruction, ""),
    ]
    names = {each.name for each in structure.properties}
    wanted = {"pairing of the exponents": "symplectic", "error of running it back": "reversible"}
    return Topic(
        title="Structure",
        remark="what most steps keep to rounding",
        facts=tuple(fact for fact in facts if wanted[fact[0]] in names),
        remarks=tuple((f"{each.name} defect", _MEANINGS[each.name]) for each in structure.properties),
        tables=(
            TopicTable(
                title="0 is perfect",
                heads=("property", "kept by", "largest defect"),
                rows=tuple(_row(each) for each in structure.properties),
            ),
        ),
    )


def _row(found: Property) -> tuple[str | Estimate, ...]:
    worst = max(found.steps, key=lambda step: step.defect.value or 0.0)
    return found.name, f"{found.kept} of {len(found.steps)}", worst.defect
