"""What only a flow has: a vector field, a solver, its steps and its errors."""

from __future__ import annotations

from dynstab.core.frozen import Frozen


class FlowDynamics(Frozen):
    """A differential equation along the steps that its solver accepted."""
