"""DS503: a residual stack that does not sample a differential equation."""

from __future__ import annotations

from collections.abc import Iterator

from dynstab.core.flag import Severity
from dynstab.diagnostics.case import Case
from dynstab.diagnostics.depth_flow import independent, unrefined, weight_change
from dynstab.diagnostics.facts import Facts, finite
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.thresholds import FLOW_CHANGE, FLOW_ORDER
from dynstab.diagnostics.words import number, percent


def find(facts: Facts) -> Iterator[Finding]:
    rough = independent(facts)
    if not facts.residual_steps() or not (rough or unrefined(facts)):
        return
    network, change = facts.measurements.network, weight_change(facts)
    order = finite(network.refinement_order)
    measured = change if rough else order
    if measured is None:
        return
    yield Finding(
        measure="network.depth_smoothness" if rough else "network.refinement_order",
        value=measured,
        threshold=FLOW_CHANGE if rough else FLOW_ORDER,
        where="network",
        steps=tuple(step.index for step in facts.residual_steps()),
        message=f"The stack is not a sampled flow: {_why(order, change, rough)}.",
        evidence={"order": order, "error": network.refinement_order.error, "weight_change": change},
        advice=(
            "Read exponents per step, not per unit of depth-time: there is no differential equation behind them.",
            "For a network that is to be a flow, tie or smooth the weights along depth and scale branches by 1/L.",
        ),
    )


def _why(order: float | None, change: float | None, rough: bool) -> str:
    if rough and change is not None:
        return f"weights change by {percent(change)} of their size from block to block, independent ones by 141 %"
    slow = f"refining the depth step converges with order {number(order or 0.0)} where a smooth stack has 1"
    if change is None:
        return slow
    if change == 0:
        return f"{slow}, though every block has the same weights: its steps are large or driven from outside"
    return f"{slow}, though weights change by no more than {percent(change)} of their size from block to block"


RULE = Rule(
    code="DS503",
    name="not-a-flow",
    severity=Severity.INFO,
    summary="No flow behind the depth: weights jump from block to block, or refining the depth step has no limit.",
    documentation=document(
        what_it_flags="""
            The weights change by half their size or more from one block to the next. Or the stack, compared with
            itself at coarser depth steps, where every second block stands for two with a branch twice as large,
            converges with an order below 0.8, where a stack that samples a smooth flow has 1.
            """,
        why_it_matters="""
            Rates per unit of depth-time, stability regions of solvers and adjoint methods presume a flow.
            Without one they describe something that the network does not do.
            """,
        known_problems="""
            Independent weights in every block, the usual initialisation, have no flow limit (with branches
            scaled by 1/sqrt(L) the limit is a stochastic one). This is a fact about reading the network, not
            a fault of it. Steps that are large beside the field's own time scale have a low order with tied
            weights, too; and a high one, where the coarser stacks blow up, is not shown and says nothing.
            """,
        example="""
            A ResNet of 16 post-activation blocks at initialisation: weights change by 141 % from block to block,
            orders from 0.8 to 1.0 by accident of the draw. The same blocks with tied weights and branches scaled
            by 1/L: order 1.
            """,
        what_to_do="""
            Nothing if the network is not meant as a flow; else tie, smooth or interpolate the weights.
            """,
        references=(
            "Sander, Ablin & Peyre (2022), Do residual neural networks discretize neural ODEs?, NeurIPS",
            "Cohen, Cont, Rossier & Xu (2021), Scaling properties of deep residual networks, ICML",
            "Chen, Rubanova, Bettencourt & Duvenaud (2018), Neural ordinary differential equations, NeurIPS",
        ),
    ),
    find=find,
    silent_in=("training",),
    fires_on=(
        Case(network={"refinement_order": 0.1}),
        Case(network={"refinement_order": 0.5, "depth_smoothness": None}),
        Case(network={"refinement_order": 1.0, "depth_smoothness": 17.0}, network_flow={"blocks": 12}),
        Case(network={"refinement_order": None, "depth_smoothness": 17.0}, network_flow={"blocks": 12}),
    ),
    silent_on=(
        Case(),
        Case(network={"refinement_order": None}),
        Case(network_flow={"blocks": 12}),
        Case(network={"refinement_order": 0.1}, kind="plain"),
    ),
)
