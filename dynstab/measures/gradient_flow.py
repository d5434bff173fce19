"""The gradient at every state, from cotangents at the last one: its gain, and bounds over all cotangents."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from torch import Tensor

from dynstab.core.estimate import CONVERGED, Estimate, Label
from dynstab.estimators.result import NON_FINITE, Result
from dynstab.measures.aggregate import summarise
from dynstab.measures.flow_profile import FlowProfile, dense_profile, swept_profile
from dynstab.measures.survey import Finding, Survey

_DRAW = 2
_NOT_FORMED = "needs the Jacobians of all steps: a state is too large to form them"


def measure_gradient_flow(survey: Survey) -> Iterator[Finding]:
    """Gain, relative gain and bounds at every state; leaves the profile per input for what follows."""
    if not survey.trajectory.steps:
        return
    profile = survey.flow = flow_profile(survey)
    relative = survey.log_relative_gain
    for state in survey.trajectory.states:
        yield Finding("gradient", state.index, _fields(profile, relative[:, state.index], state.index))


def flow_profile(survey: Survey) -> FlowProfile:
    """From the Jacobians where every one of them is formed, else from a backward sweep."""
    trajectory, effort = survey.trajectory, survey.effort
    cotangent = None
    if survey.cotangent is not None:
        last = trajectory.states[-1].layout
        cotangent = last.flatten(tuple(tensor[None] for tensor in survey.cotangent))[:, :, 0]
    operators = [step.jacobian for step in trajectory.steps]
    if survey.exact_flow:
        formed = [matrix for matrix in survey.matrices if matrix is not None]
        return dense_profile(formed, operators[0].dtype, cotangent)
    return swept_profile(
        operators,
        effort.flow_probes,
        seed=survey.seed(_DRAW),
        chunk_bytes=effort.chunk_bytes,
        cotangent=cotangent,
        tick=survey.tick,
    )


def _fields(profile: FlowProfile, relative: Tensor, state: int) -> dict[str, Estimate]:
    log_gain, error = profile.log_gain[:, state], profile.log_error[:, state]
    return {
        "gain": _gain(profile, log_gain, error),
        "relative_gain": _gain(profile, relative, error),
        "lower": _bound(profile, profile.log_lower, state, Label.LOWER),
        "upper": _bound(profile, profile.log_upper, state, profile.upper_label),
    }


def _gain(profile: FlowProfile, log_gain: Tensor, error: Tensor) -> Estimate:
    """Geometric mean over the inputs."""
    gain = log_gain.exp()[:, None]
    return summarise(
        Result(
            values=gain,
            errors=gain * error[:, None],
            label=profile.label,
            method=profile.method,
            products=profile.products,
        ),
        mean="geometric",
    )


def _bound(profile: FlowProfile, logs: Tensor | None, state: int, label: Label) -> Estimate:
    """The least or the greatest over the inputs, so that it bounds every one of them."""
    if logs is None:
        return Estimate.unmeasured(_NOT_FORMED)
    lower = label is Label.LOWER
    values = logs[:, state].exp()
    value = float(values.amin() if lower else values.amax())
    return Estimate(
        value=value,
        error=0.0,
        method=profile.lower_method if lower else f"{profile.upper_method}, greatest over inputs",
        label=label,
        outcome=CONVERGED if value < inf else NON_FINITE,
        products=profile.products,
        samples=len(values),
    )
