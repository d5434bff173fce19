"""DS503: a residual stack that does not sample a differential equation."""

from __future__ import annotations

from collections.abc import Iterator

from dynstab.core.flag import Severity
from dynstab.diagnostics.case import Case
from dynstab.diagnostics.facts import Facts, error, finite
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.thresholds import FLOW_ORDER
from dynstab.diagnostics.words import number


def find(facts: Facts) -> Iterator[Finding]:
    order = facts.measurements.network.refinement_order
    value = finite(order)
    if value is None or value + error(order) >= FLOW_ORDER or not facts.residual_steps():
        return
    smoothness = finite(facts.measurements.network.depth_smoothness)
    rough = f", weights change by {number(smoothness)} of their size over the depth" if smoothness is not None else ""
    yield Finding(
        measure="network.refinement_order",
        value=value,
        threshold=FLOW_ORDER,
        where="network",
        steps=tuple(step.index for step in facts.residual_steps()),
        message=f"The stack is not a sampled flow: refining the depth step converges with order {number(value)} "
        f"where a smooth stack has 1{rough}.",
        evidence={"error": order.error, "depth_smoothness": smoothness},
        advice=(
            "Read exponents per step, not per unit of depth-time: there is no differential equation behind them.",
            "For a network that is to be a flow, tie or smooth the weights along depth and scale branches by 1/L.",
        ),
    )


RULE = Rule(
    code="DS503",
    name="not-a-flow",
    severity=Severity.INFO,
    summary="Refining the depth step has no limit: the residual stack does not sample a differential equation.",
    documentation=document(
        what_it_flags="""
            The stack is compared with itself at coarser depth steps, where every second block stands for two.
            The error falls with an order below 0.8, where a stack that samples a smooth flow has 1.
            """,
        why_it_matters="""
            Rates per unit of depth-time, stability regions of solvers and adjoint methods presume a flow.
            Without one they describe something that the network does not do.
            """,
        known_problems="""
            Independent weights in every block, the usual initialisation, have no flow limit (with branches
            scaled by 1/sqrt(L) the limit is a stochastic one). This is a fact about reading the network, not
            a fault of it.
            """,
        example="""
            A ResNet-50 at initialisation: order near 0. The same blocks with tied weights and branches scaled
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
    fires_on=(
        Case(network={"refinement_order": 0.1}),
        Case(network={"refinement_order": 0.5, "depth_smoothness": None}),
    ),
    silent_on=(
        Case(),
        Case(network={"refinement_order": None}),
        Case(network={"refinement_order": 0.1}, kind="plain"),
    ),
)
