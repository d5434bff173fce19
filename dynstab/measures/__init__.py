"""Trajectory -> Measurements: one file a measure, neutral words only."""

from __future__ import annotations

import torch
from torch import Tensor

from dynstab.core.config import Config
from dynstab.core.errors import StateError
from dynstab.core.measurements import Measurements
from dynstab.core.progress import NullProgress, Progress
from dynstab.measures.activations import measure_activations
from dynstab.measures.cost import planned_products
from dynstab.measures.eigen import measure_eigenvalues
from dynstab.measures.exponents import measure_exponents
from dynstab.measures.gains import measure_gains
from dynstab.measures.gradient_flow import measure_gradient_flow
from dynstab.measures.network import measure_network
from dynstab.measures.singular import measure_singular_values
from dynstab.measures.states import measure_states
from dynstab.measures.survey import Measure, Survey
from dynstab.systems.trajectory import Trajectory

__all__ = ["MEASURES", "measure", "planned_products"]

# In this order: a measure may read what those before it found.
MEASURES: dict[str, Measure] = {
    "states": measure_states,
    "activations": measure_activations,
    "gains": measure_gains,
    "gradient flow": measure_gradient_flow,
    "singular values": measure_singular_values,
    "eigenvalues": measure_eigenvalues,
    "exponents": measure_exponents,
    "network": measure_network,
}


def measure(
    trajectory: Trajectory,
    config: Config,
    *,
    reference: Trajectory | None = None,
    cotangent: tuple[Tensor, ...] | None = None,
    training_dtype: torch.dtype | None = None,
    progress: Progress | None = None,
) -> Measurements:
    """Everything that can be measured on a trajectory at the effort that the config names.

    Args:
        reference: the same system at fewer inputs, for singular values, eigenvalues and exponents; None takes
            the trajectory itself. Gains, states and gradient flow always use the trajectory.
        cotangent: at the last state, tensors of its shapes, where a loss gives one; isotropic otherwise.
        training_dtype: the format in which gradients live in training; the states' own by default.
        progress: told of each measure.

    Returns:
        Measurements. After an interrupt (Ctrl-C) what was found until then, and `partial` names the rest.

    Raises:
        StateError: the reference has other steps than the trajectory.
    """
    if reference is not None and len(reference.steps) != len(trajectory.steps):
        raise StateError(
            f"a reference with {len(reference.steps)} steps", expected=f"the trajectory's {len(trajectory.steps)}"
        )
    survey = Survey(
        trajectory=trajectory,
        spectral=trajectory if reference is None else reference,
        config=config,
        cotangent=cotangent,
        training_dtype=training_dtype,
    )
    return survey.measurements(_run(survey, NullProgress() if progress is None else progress))


def _run(survey: Survey, progress: Progress) -> tuple[str, ...]:
    """All measures in turn; the names of those that an interrupt cut short or kept from starting."""
    names = list(MEASURES)
    for position, name in enumerate(names):
        try:
            with torch.no_grad(), progress.stage(name, len(survey.trajectory.steps) or None) as stage:
                for finding in MEASURES[name](survey):
                    survey.record(finding)
                    stage.advance()
        except KeyboardInterrupt:
            return tuple(names[position:])
    return ()
