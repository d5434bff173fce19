"""Training as a dynamical system: the weights under an optimiser."""

from __future__ import annotations

from dynstab.core.frozen import Frozen


class TrainingDynamics(Frozen):
    """Where a training run stands: sharpness beside the optimiser's threshold."""
