"""What does not change during a run, as its records will say."""

from __future__ import annotations

from datetime import UTC, datetime

import torch
from torch import nn
from torch.optim import Optimizer

import dynstab
from dynstab.core.run import RunInfo


def run_info(
    model: nn.Module,
    *,
    places: tuple[str, ...],
    groups: tuple[str, ...],
    states: tuple[str, ...],
    steps: tuple[str, ...],
    optimizer: Optimizer | None,
    every: int,
    sharpness_every: int,
) -> RunInfo:
    """The run's description; the dtype is that of most parameters."""
    parameters = list(model.parameters())
    counts: dict[torch.dtype, int] = {}
    for parameter in parameters:
        counts[parameter.dtype] = counts.get(parameter.dtype, 0) + parameter.numel()
    return RunInfo(
        dynstab=dynstab.__version__,
        torch=torch.__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        model=type(model).__name__,
        parameters=sum(counts.values()),
        device=str(parameters[0].device) if parameters else "cpu",
        dtype=str(max(counts, key=lambda dtype: counts[dtype], default=torch.float32)).removeprefix("torch."),
        places=places,
        groups=groups,
        states=states,
        steps=steps,
        optimizer=None if optimizer is None else type(optimizer).__name__,
        every=every,
        sharpness_every=sharpness_every,
    )
