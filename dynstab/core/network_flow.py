"""A residual network read as a sampled flow."""

from __future__ import annotations

from dynstab.core.frozen import Frozen


class NetworkFlow(Frozen):
    """How far a stack of residual steps behaves as the samples of a differential equation."""
