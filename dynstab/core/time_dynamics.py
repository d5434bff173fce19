"""What only a recurrence has: attractors, memory, covariant directions."""

from __future__ import annotations

from dynstab.core.frozen import Frozen


class TimeDynamics(Frozen):
    """A recurrence, state after state, one step a unit of time."""
