"""A residual network read as a sampled flow."""

from __future__ import annotations

from dynstab.core.network_flow import NetworkFlow
from dynstab.core.report import Report
from dynstab.render.topics import Topic, TopicTable

ORDER = 30


def topic(report: Report) -> Topic | None:
    flow = report.measurements.network_flow
    if flow is None or not flow.blocks:
        return None
    doubt, split = _doubt(report), f" of {flow.period} sub-steps" if flow.period > 1 else ""
    facts = [("implied step", flow.implied_step, "")]
    if not doubt:
        facts += [
            ("depth-time", flow.depth_time, ""),
            ("drift of the control Hamiltonian", flow.hamiltonian_drift, ""),
        ]
    if flow.period > 1:
        facts += [
            ("commutator of the sub-steps", flow.commutator, ""),
            ("sub-steps in the other order", flow.order_change, ""),
            ("sub-steps in parallel", flow.parallel_change, ""),
            ("sub-steps split symmetrically", flow.strang_change, ""),
        ]
    return Topic(
        title="As a flow",
        remark=f"{flow.blocks} blocks{split}{doubt}",
        facts=tuple(facts),
        tables=() if doubt else _tables(flow),
        charts=("network_flow",) if flow.sub_steps or flow.hamiltonian else (),
    )


def _doubt(report: Report) -> str:
    """Why times and integrators of a flow would mean nothing here; empty where there is one."""
    order = report.measurements.network.refinement_order
    if any(flag.name == "not-a-flow" for flag in report.flags):
        return "; not a sampled flow"
    return "" if order.measured else f"; not known to sample a flow: {order.outcome}"


def _tables(flow: NetworkFlow) -> tuple[TopicTable, ...]:
    if not flow.integrators:
        return ()
    rows = [(each.name, each.state_change, each.gain_change) for each in flow.integrators]
    table = TopicTable(
        title="What another integrator would change: share of the update, ln of the gain",
        heads=("integrator", "update", "ln gain"),
        rows=tuple(rows),
    )
    return (table,)
