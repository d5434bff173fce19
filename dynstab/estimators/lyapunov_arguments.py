"""What `lyapunov_function` is asked, and whether it can be served."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import torch
from torch import Tensor

from dynstab.core.errors import ConfigError, InputError
from dynstab.estimators.stepped_orbit import check_state

_LARGEST = 2048


def check_autonomous(field: Callable[..., Tensor], near: Tensor, time: float) -> None:
    """Raises InputError where the field is another one later on, at a point beside the guess."""
    beside = near + 0.1 * (1 + near.abs())
    with torch.no_grad():
        first, later = (field(t, beside) for t in (0.0, 0.37 * time))
    if not torch.allclose(first, later, equal_nan=True):
        raise InputError(
            "the field depends on t: it differs between t = 0 and later at the same point",
            expected="a field f(t, x) that does not use t",
            remedy="make the phase of what drives it a part of the state",
        )


def check_arguments(
    near: Tensor,
    steps: int | None,
    time: float | None,
    dt: float,
    q: Tensor | None,
    reach: float | None,
    samples: int,
) -> None:
    """Raises InputError or ConfigError for what `lyapunov_function` cannot serve."""
    check_state(near)
    size = near.numel()
    if size > _LARGEST:
        raise ConfigError(f"a state of {size} entries", expected=f"1 to {_LARGEST}: P is a dense matrix")
    if steps is not None and time is not None:
        raise ConfigError("both steps and time", expected="steps of a map, or time of a vector field")
    if (steps is not None and steps < 1) or (time is not None and not 0 < dt <= time):
        raise ConfigError(f"steps={steps}, time={time}, dt={dt}", expected="at least one step")
    if reach is not None and not 0 < reach < inf:
        raise ConfigError(f"reach={reach}", expected="a distance above 0")
    if samples < 1:
        raise ConfigError(f"samples={samples}", expected="at least one")
    if q is not None and not _is_metric(q, size):
        got = f"shape {tuple(q.shape)}" if isinstance(q, Tensor) else f"type {type(q).__name__}"
        raise ConfigError(f"q of {got}", expected=f"a symmetric positive definite {size} x {size} tensor")


def _is_metric(q: object, size: int) -> bool:
    if not isinstance(q, Tensor) or q.shape != (size, size):
        return False
    return torch.allclose(q, q.T) and float(torch.linalg.eigvalsh(q.double())[0]) > 0
