"""DS311: a stack that samples a flow with too coarse a step."""

from __future__ import annotations

from collections.abc import Iterator

from dynstab.core.flag import Severity
from dynstab.core.network_flow import IntegratorChange
from dynstab.diagnostics.case import Case, number
from dynstab.diagnostics.depth_flow import samples_flow
from dynstab.diagnostics.facts import Facts, finite
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.thresholds import INTEGRATOR_CHANGE
from dynstab.diagnostics.words import number as shown
from dynstab.diagnostics.words import percent


def find(facts: Facts) -> Iterator[Finding]:
    flow, order = facts.measurements.network_flow, finite(facts.measurements.network.refinement_order)
    if flow is None or not samples_flow(facts):
        return
    midpoint = next((each for each in flow.integrators if each.name == "midpoint"), None)
    change = finite(midpoint.state_change) if midpoint else None
    if change is None or change <= INTEGRATOR_CHANGE:
        return
    drift = finite(flow.hamiltonian_drift)
    wanders = f", and the control Hamiltonian drifts by {percent(drift)}" if drift is not None else ""
    more = max(2, round(change / INTEGRATOR_CHANGE))
    yield Finding(
        measure="network_flow.integrators",
        value=change,
        threshold=INTEGRATOR_CHANGE,
        where="network",
        message=f"The stack samples a flow coarsely: the midpoint rule would change its update by "
        f"{percent(change)}{wanders}.",
        evidence={"refinement_order": order, "implied_step": finite(flow.implied_step), "hamiltonian_drift": drift},
        advice=(
            f"Use about {shown(more)} times as many blocks with branches scaled down by as much, or a midpoint step.",
            "Do not read this network through the continuous one: adjoint gradients and rates would be off by as much.",
        ),
    )


def _flow(change: float) -> dict[str, object]:
    return {"integrators": (IntegratorChange(name="midpoint", evaluations=2, state_change=number(change)),)}


RULE = Rule(
    code="DS311",
    name="coarse-depth-step",
    severity=Severity.INFO,
    summary="A residual stack samples a flow, but a better integrator would give another answer.",
    documentation=document(
        what_it_flags="""
            Refining the depth step converges (order 0.8 or more) and the weights vary smoothly over the blocks, so
            that there is a flow; but one midpoint step in
            place of each block, with the field interpolated between blocks, changes the update of the stack by more
            than 10 %.
            """,
        why_it_matters="""
            Statements about the flow (stability regions, conserved quantities, adjoint gradients, a change of depth
            without training) hold for the network up to this difference.
            """,
        known_problems="""
            The field between two blocks is interpolated linearly; other fillings differ to the second order. The
            network itself may be trained to rely on its coarse steps: that is no fault.
            """,
        example="""
            Eight tied blocks of h + 0.5 tanh(W h): order 1, the midpoint rule changes the update by 25 %.
            """,
        what_to_do="""
            More blocks with smaller branches, or a better integrator, if the flow is what is wanted.
            """,
        references=(
            "Sander, Ablin & Peyre (2022), Do residual neural networks discretize neural ODEs?, NeurIPS",
            "Queiruga et al. (2020), Continuous-in-depth neural networks, arXiv:2008.02389",
        ),
    ),
    find=find,
    fires_on=(Case(network_flow=_flow(0.3)),),
    silent_on=(
        Case(),
        Case(network_flow=_flow(0.02)),
        Case(network_flow=_flow(0.3), network={"refinement_order": None}),
        Case(network_flow=_flow(0.3) | {"blocks": 12}, network={"depth_smoothness": 7.5}),
    ),
)
