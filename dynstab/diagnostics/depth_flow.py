"""Whether a residual stack samples a differential equation, for all rules that speak of one."""

from __future__ import annotations

from dynstab.diagnostics.facts import Facts, error, finite
from dynstab.diagnostics.thresholds import FLOW_CHANGE, FLOW_ORDER


def weight_change(facts: Facts) -> float | None:
    """Mean ||theta_{l+1} - theta_l|| / ||theta_l|| from block to block: 0 if tied, 1.41 of independent weights."""
    smoothness, flow = finite(facts.measurements.network.depth_smoothness), facts.measurements.network_flow
    return None if smoothness is None or flow is None or not flow.blocks else smoothness / flow.blocks


def independent(facts: Facts) -> bool:
    """The weights change too much from block to block to be samples of a function of depth."""
    change = weight_change(facts)
    return change is not None and change >= FLOW_CHANGE


def unrefined(facts: Facts) -> bool:
    """Finer depth steps do not converge as those of a flow do, whatever the weights."""
    order = facts.measurements.network.refinement_order
    value = finite(order)
    return value is not None and value + error(order) < FLOW_ORDER


def samples_flow(facts: Facts) -> bool:
    """An order near 1 and weights that vary smoothly, as far as they were measured; too high an order is none."""
    order = finite(facts.measurements.network.refinement_order)
    return order is not None and order >= FLOW_ORDER and not independent(facts)
