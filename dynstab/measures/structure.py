"""What the steps preserve, measured where the network means to preserve it.

What a network means is read off the network itself: a structure that more than half of its steps keep to
rounding is no accident, and one that keeps it nowhere is not asked for. One screen of a few products a step
tells; exact defects follow for what is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch

from dynstab.core.estimate import Estimate, Label
from dynstab.core.structure import Property, PropertyName, StepDefect
from dynstab.estimators.product_qr import log_singular_values
from dynstab.estimators.result import Result, rounding
from dynstab.estimators.structure import (
    Probes,
    antisymmetric_defect,
    coupling_defect,
    hamiltonian_defect,
    identity_probes,
    is_kept,
    is_permutation,
    scaled_antisymmetric_defect,
    symplectic_defect,
)
from dynstab.linear.operator import DenseOperator, LinearOperator
from dynstab.measures.aggregate import summarise
from dynstab.measures.reconstruction import reconstruction_error
from dynstab.measures.spans import Span, probe_columns, spans
from dynstab.measures.structure_couplings import Seen, inverse_of, is_linear_span, nearest_defect, see_coupling, summed
from dynstab.measures.survey import Finding, Survey
from dynstab.systems.flow_trajectory import FlowTrajectory

_DRAW = 11
_SCREEN, _PROBES = 1, 4
_EXACT_SIZE = 256  # beyond it, identity probes and the pairing of exponents cost as much as the rest of an analysis
_LEAST = 2
_NAMES: tuple[PropertyName, ...] = (
    "symplectic", "Hamiltonian field", "antisymmetric field", "reversible", "coupling", "volume-preserving",
)  # fmt: skip


@dataclass(kw_only=True, eq=False)
class _Screen:
    """What was seen of one span: the defects by name, and the coupling that it may be.

    `confirmed` by a finite move, the coupling knows its way back, even in a network that is not read as one of them.
    `shifts_halves`: the state's own two halves are seen to shift in turn, whatever the coupling says.
    """

    span: Span
    coupling: Seen | None = None
    confirmed: bool = False
    shifts_halves: bool = False
    found: dict[PropertyName, Result] = field(default_factory=dict)

    def goes_back_as(self, read: PropertyName) -> bool:
        """Whether by its own coupling: where the network is read so, or the state has no halves that shift in turn."""
        return self.confirmed and (read == "coupling" or not self.shifts_halves)

    def keeps(self, name: PropertyName) -> bool | None:
        result = self.found.get(name)
        return None if result is None else is_kept(result)


def measure_structure(survey: Survey) -> Iterator[Finding]:
    """The properties that most steps keep, the pairing of the exponents and the error of running the stack back."""
    screens = []
    for span in spans(survey):
        probe = probe_columns(span.operator, _SCREEN, survey.seed(_DRAW, span.source))
        if not is_permutation(span.operator, probe):
            screens.append(_screened(survey, span, Probes(columns=probe, exact=False)))
        survey.tick()
    _compare_with_couplings(survey, screens)
    properties = _properties(screens)
    if not properties:
        return
    fields: dict[str, object] = {"properties": properties}
    symplectic = next((each for each in properties if each.name == "symplectic"), None)
    if symplectic is not None:
        fields["pairing"] = (
            _pairing(survey, [screen.span for screen in screens])
            if symplectic.kept
            else Estimate.unmeasured("no step is symplectic: nothing pairs the exponents", unit="nat/step")
        )
    names, kept = {each.name for each in properties}, _couplings(screens)
    if "coupling" in names:
        other = [screen.coupling for screen in screens if screen.coupling is not None and screen.coupling not in kept]
        fields["couplings"] = summed(survey, kept, other)
    backwards = "coupling" if "coupling" in names else "reversible"
    if backwards in names:
        run = [screen.span for screen in screens if screen.keeps("reversible") or screen.keeps(backwards)]
        known = [screen.coupling for screen in screens if screen.coupling and screen.goes_back_as(backwards)]
        fields["reconstruction"] = reconstruction_error(survey.spectral, run, inverse_of(known))
    yield Finding("structure", 0, fields)


def _screened(survey: Survey, span: Span, probes: Probes) -> _Screen:
    """A few products for each property, and exact numbers for those that these do not rule out."""
    screen, operator, flow = _Screen(span=span), span.operator, _own_field(survey, span)
    for name, defect in _defects(span, flow).items():
        result = defect(probes)
        screen.found[name] = defect(_closer(survey, span)) if is_kept(result) else result
    if is_kept(screen.found.get("Hamiltonian field", screen.found["antisymmetric field"])) and span.halves is not None:
        screen.found["symplectic"] = symplectic_defect(operator, span.halves, _closer(survey, span))
    matrix = survey.spectral_matrices[span.source]
    single = span.target == span.source + 1 and operator.cols <= _EXACT_SIZE
    if flow is None and single and matrix is not None and not is_kept(screen.found["antisymmetric field"]):
        scaled = scaled_antisymmetric_defect(matrix)
        screen.found["antisymmetric field"] = scaled if is_kept(scaled) else screen.found["antisymmetric field"]
    seen = screen.coupling = see_coupling(survey, span)
    coupling = None if seen is None else seen.defect(_closer(survey, span))
    screen.shifts_halves = "reversible" in screen.found and is_kept(screen.found["reversible"])
    if coupling is not None:
        screen.found["coupling"], screen.confirmed = coupling, is_kept(coupling)
        if seen is not None and seen.shifts and screen.confirmed:
            screen.found["reversible"] = coupling
    volume = _volume(survey, span)
    if volume is None and seen is not None and screen.keeps("coupling"):
        total = seen.coupling.log_determinant()
        volume = total.with_values(total.values.abs(), total.errors)
    if volume is not None:
        screen.found["volume-preserving"] = volume
    return screen


def _couplings(screens: list[_Screen]) -> list[Seen]:
    return [screen.coupling for screen in screens if screen.coupling is not None and screen.keeps("coupling")]


def _compare_with_couplings(survey: Survey, screens: list[_Screen]) -> None:
    """In a network of couplings, by how much the steps without that pattern miss it; elsewhere none is asked for it.

    Two kinds of steps lose nothing and are passed over: those with the pattern that are no couplings, such as a logit
    in front of one, and linear ones that mix the entries. A network of linear steps alone is none of couplings:
    any chain of triangular 2 x 2 matrices would be one.
    """
    kept = _couplings(screens)
    other = [screen for screen in screens if kept and screen.coupling is None]
    lost = [screen for screen in other if not is_linear_span(survey, screen.span)]
    meant = len(kept) > len(lost) and not all(is_linear_span(survey, seen.span) for seen in kept)
    for screen in screens:
        if not (meant and screen.keeps("coupling")):
            screen.found.pop("coupling", None)
    for screen in lost if meant else ():
        screen.found["coupling"] = nearest_defect(screen.span, kept, _closer(survey, screen.span))


def _closer(survey: Survey, span: Span) -> Probes:
    """All columns where that is affordable, else a few more."""
    if max(span.operator.shape) <= _EXACT_SIZE:
        return identity_probes(span.operator)
    columns = probe_columns(span.operator, _PROBES, survey.seed(_DRAW, span.source, 1))
    return Probes(columns=columns, exact=False)


def _own_field(survey: Survey, span: Span) -> LinearOperator | None:
    """The Jacobian of a flow's vector field where the span starts; of other systems the step alone is known."""
    trajectory = survey.spectral
    if not isinstance(trajectory, FlowTrajectory):
        return None
    jacobian, samples = trajectory.points[span.source].jacobian, span.operator.samples
    return jacobian if jacobian.samples == samples else DenseOperator(jacobian.dense()[:samples])


def _defects(span: Span, flow: LinearOperator | None) -> dict[PropertyName, Callable[[Probes], Result]]:
    """Each from probes; the field is that of the flow, or the step of explicit Euler that a residual step is."""
    operator, halves = span.operator, span.halves
    stepped, identity = (operator, 1.0) if flow is None else (flow, 0.0)
    defects: dict[PropertyName, Callable[[Probes], Result]] = {
        "antisymmetric field": lambda probes: antisymmetric_defect(stepped, probes, identity=identity)
    }
    if halves is not None:
        defects |= {
            "symplectic": lambda probes: symplectic_defect(operator, halves, probes),
            "Hamiltonian field": lambda probes: hamiltonian_defect(stepped, halves, probes, identity=identity),
            "reversible": lambda probes: coupling_defect(operator, halves, probes),
        }
    return defects


def _volume(survey: Survey, span: Span) -> Result | None:
    """|ln |det J||, where the measure of singular values found it."""
    parts = [survey.estimate("step", index, "log_determinant") for index in range(span.source, span.target)]
    known = [part for part in parts if part is not None and part.value is not None and part.label is not Label.UPPER]
    if len(known) < len(parts):
        return None
    noise = 64 * rounding(span.operator.dtype, *span.operator.shape)
    errors = sum(part.error or 0.0 for part in known) + noise
    total = abs(sum(part.value or 0.0 for part in known))
    return Result(
        values=torch.tensor([[total]], dtype=torch.float64),
        errors=torch.tensor([[errors]], dtype=torch.float64),
        label=Label.EXACT if all(part.label is Label.EXACT for part in known) else Label.ESTIMATE,
        method=known[0].method,
    )


def _properties(screens: list[_Screen]) -> tuple[Property, ...]:
    """Those that more than half of the steps keep, at least two of them.

    A Hamiltonian field asks for symplectic steps: then by how much these miss it is recorded even where none keeps it.
    Of additive couplings of the two halves, that they are couplings at all is no news.
    """
    found = {name: _property(screens, name) for name in _NAMES}
    asked = {"coupling": len(found["coupling"].steps)}
    meant = {n: p for n, p in found.items() if p.kept >= _LEAST and 2 * p.kept > asked.get(n, len(screens))}
    if "symplectic" in meant:
        meant.pop("Hamiltonian field", None)
    elif "Hamiltonian field" in meant:
        meant = {"symplectic": found["symplectic"], **meant}
    if "reversible" in meant and not any(seen.affine for seen in _couplings(screens)):
        meant.pop("coupling", None)
    return tuple(meant.values())


def _property(screens: list[_Screen], name: PropertyName) -> Property:
    known = [(screen.span, result) for screen in screens if (result := screen.found.get(name)) is not None]
    unit = "nat" if name == "volume-preserving" else "1"
    steps = tuple(
        StepDefect(source=span.source, target=span.target, defect=summarise(result, unit=unit), kept=is_kept(result))
        for span, result in known
    )
    return Property(name=name, steps=steps)


def _pairing(survey: Survey, chain: list[Span]) -> Estimate:
    """max_i |Lambda_i + Lambda_{n+1-i}| of the finite-time exponents, in nat per step."""
    unit, size = "nat/step", chain[0].operator.cols
    matrices = [matrix for matrix in survey.spectral_matrices[chain[0].source : chain[-1].target] if matrix is not None]
    joined = all(a.target == b.source for a, b in zip(chain, chain[1:], strict=False))
    if not joined or len(matrices) < chain[-1].target - chain[0].source:
        return Estimate.unmeasured("needs the Jacobians of all steps of one unbroken stack", unit=unit)
    if size > _EXACT_SIZE:
        return Estimate.unmeasured(
            f"all exponents of states of more than {_EXACT_SIZE} entries cost too much", unit=unit
        )
    logs = log_singular_values(matrices)
    length = len(chain)
    missed = (logs.values + logs.values.flip(1)).abs().amax(dim=1, keepdim=True) / length
    floor = rounding(matrices[0].dtype, size, size)  # each step's own rounding moves a logarithm by this much
    errors = 2 * logs.errors.amax(dim=1, keepdim=True) / length + floor
    return summarise(logs.with_values(missed, errors), unit=unit)
