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
    sampled = all(flag.name != "not-a-flow" for flag in report.flags)
    split = f" of {flow.period} sub-steps" if flow.period > 1 else ""
    facts = [
        ("implied step", flow.implied_step, ""),
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
        remark=f"{flow.blocks} blocks{split}" + ("" if sampled else "; not a sampled flow"),
        facts=tuple(facts),
        tables=_tables(flow),
        charts=("network_flow",) if flow.sub_steps or flow.hamiltonian else (),
    )


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
