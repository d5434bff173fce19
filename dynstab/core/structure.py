"""Structure that a network may keep or lose: symplecticity, volume, reversibility, a Lyapunov function."""

from __future__ import annotations

from dynstab.core.frozen import Frozen


class Structure(Frozen):
    """What the Jacobians preserve, and by how much they miss it."""
