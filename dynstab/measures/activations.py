"""Rectifiers: units that are never on, and pre-activations that sit exactly on a kink."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dynstab.core.estimate import Estimate, Label
from dynstab.measures.survey import Finding, Survey
from dynstab.systems.trajectory import Activation, State


def measure_activations(survey: Survey) -> Iterator[Finding]:
    """Dead and kinked units of every step."""
    for step in survey.trajectory.steps:
        states = survey.trajectory.states[step.source : step.target + 1]
        fields = {"dead_fraction": _dead(step.activations, states), "kink_fraction": _kinked(step.activations)}
        yield Finding("step", step.index, fields)


def _dead(activations: tuple[Activation, ...], states: tuple[State, ...]) -> Estimate:
    rectifiers = [activation for activation in activations if activation.rectifier]
    if not rectifiers:
        return Estimate.unmeasured("no rectifier in this step")
    silent = torch.cat([_silent_units(activation.output, states) for activation in rectifiers])
    return _counted(silent, "units that are zero on every input and position")


def _silent_units(output: Tensor, states: tuple[State, ...]) -> Tensor:
    unit = _unit_dim(output, states)
    return (output == 0).movedim(unit, 0).flatten(1).all(dim=1)


def _unit_dim(output: Tensor, states: tuple[State, ...]) -> int:
    """The dimension that counts features: as in a neighbouring state of the same rank, else by convention."""
    for state in states:
        if state.feature_dim is not None and state.value and state.value[0].ndim == output.ndim:
            return state.feature_dim
    return 1 if output.ndim >= 4 else output.ndim - 1


def _kinked(activations: tuple[Activation, ...]) -> Estimate:
    kinked = [activation for activation in activations if activation.kinks]
    if not kinked:
        return Estimate.unmeasured("no activation with a kink in this step")
    hits = torch.cat([_at_kink(activation).flatten() for activation in kinked])
    return _counted(hits, "pre-activations equal to a kink")


def _at_kink(activation: Activation) -> Tensor:
    hit = torch.zeros_like(activation.input, dtype=torch.bool)
    for kink in activation.kinks:
        hit |= activation.input == kink
    return hit


def _counted(mask: Tensor, what: str) -> Estimate:
    value = float(mask.double().mean()) if mask.numel() else 0.0
    return Estimate(value=value, error=0.0, method=f"count of {what}, of {mask.numel()}", label=Label.EXACT)
