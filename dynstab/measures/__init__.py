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
from dynstab.measures.flow_dynamics import measure_flow
from dynstab.measures.gains import measure_gains
from dynstab.measures.gradient_flow import measure_gradient_flow
from dynstab.measures.lyapunov_function import measure_lyapunov_function
from dynstab.measures.network import measure_network
from dynstab.measures.network_flow import measure_network_flow
from dynstab.measures.singular import measure_singular_values
from dynstab.measures.states import measure_states
from dynstab.measures.structure import measure_structure
from dynstab.measures.survey import Measure, Survey
from dynstab.measures.time_dynamics import measure_time
from dynstab.systems.trajectory import Trajectory

__all__ = ["MEASURES", "measure", "planned_products"]


def _steps(survey: Survey) -> int:
    return len(survey.trajectory.steps)


def _states_and_steps(survey: Survey) -> int:
    return len(survey.trajectory.states) + _steps(survey)


def _sweep(survey: Survey) -> int:
    return len(survey.trajectory.states) + (0 if survey.exact_flow else _steps(survey))


def _flow_points(survey: Survey) -> int:
    return max(1, 2 * _steps(survey)) if survey.trajectory.kind == "flow" else 0


def _over_time(survey: Survey) -> int | None:
    return None if survey.trajectory.kind == "time" else 0


def _residual(survey: Survey) -> int | None:
    """Nothing but in a network with residual steps."""
    residual = any(step.kind == "residual" for step in survey.trajectory.steps)
    return None if residual and survey.trajectory.kind == "depth" else 0


def _structured(survey: Survey) -> int | None:
    return 0 if survey.trajectory.kind == "training" or survey.config.effort == "quick" else None


def _settling(survey: Survey) -> int | None:
    return None if survey.trajectory.kind in ("time", "flow") else 0


def _unknown(_: Survey) -> None:
    return None


# In this order: a measure may read what those before it found.
MEASURES = (
    Measure("states", measure_states, _states_and_steps),
    Measure("activations", measure_activations, _steps),
    Measure("gains", measure_gains, _steps),
    Measure("gradient flow", measure_gradient_flow, _sweep),
    Measure("singular values", measure_singular_values, _steps),
    Measure("eigenvalues", measure_eigenvalues, _steps),
    Measure("exponents", measure_exponents, _unknown),
    Measure("network", measure_network, _unknown),
    Measure("time", measure_time, _over_time),
    Measure("flow", measure_flow, _flow_points),
    Measure("network as a flow", measure_network_flow, _residual),
    Measure("structure", measure_structure, _structured),
    Measure("Lyapunov function", measure_lyapunov_function, _settling),
)


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
    # What belongs to another kind of system has nothing to do here.
    measures = [measure for measure in MEASURES if measure.units(survey) != 0]
    for position, (name, run, units) in enumerate(measures):
        try:
            with torch.no_grad(), progress.stage(name, units(survey) or None) as stage:
                survey.tick = stage.advance
                for finding in run(survey):
                    survey.record(finding)
                    stage.advance()
        except KeyboardInterrupt:
            return tuple(measure.name for measure in measures[position:])
    return ()
