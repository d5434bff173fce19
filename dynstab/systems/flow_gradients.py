"""The gradient of a solution twice: by the adjoint equation, and through the solver."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dynstab.linear.runge_kutta import Tensors
from dynstab.systems.flow_methods import FIXED, is_known
from dynstab.systems.flow_problem import Gradients
from dynstab.systems.flow_watch import Seen, in_words


def gradients(seen: Seen) -> Gradients:
    """Of a random linear form of the last state, to the first state and the field's parameters: by torchdiffeq's
    adjoint with the model's tolerances, and by autograd through torchdiffeq's solver.

    Raises:
        RuntimeError: autograd refuses, or the equation cannot be solved backwards; in words which.
    """
    own = seen.base.parameters() if isinstance(seen.base, nn.Module) else seen.parameters
    parameters = [parameter for parameter in own if parameter.requires_grad]
    try:
        by_adjoint = _gradient(
            seen, parameters, "odeint_adjoint", seen.adjoint_settings | {"adjoint_params": parameters}
        )
    except (AssertionError, RuntimeError) as error:
        raise RuntimeError(f"the adjoint equation cannot be solved: {in_words(error)}") from error
    try:
        return by_adjoint, _gradient(seen, parameters, "odeint", {}, _held(seen))
    except RuntimeError as error:
        raise RuntimeError(f"autograd cannot go through the solver: {in_words(error)}") from error


def _held(seen: Seen) -> dict[str, Any]:
    """Options by which the solver takes the steps of the trajectory, with no gradient of their own.

    An adaptive solver lets its first step depend on the state, and passes the end and interpolates back to it.
    """
    if seen.method in FIXED or seen.first is None:
        return {}
    held: dict[str, Any] = {"first_step": seen.first}
    if is_known(seen.method):
        asked = _options(seen).get("step_t", ())
        held["step_t"] = torch.cat([torch.as_tensor(asked).to(seen.times), seen.times[-1:]]).unique()
    return held


def _gradient(
    seen: Seen, parameters: list[Tensor], solver: str, settings: Mapping[str, Any], options: Mapping[str, Any] = {}
) -> list[Tensor]:
    with torch.enable_grad():
        first = tuple(tensor.clone().requires_grad_() for tensor in seen.tensors(seen.initial))
        answer = getattr(importlib.import_module("torchdiffeq"), solver)(
            seen.base,
            first[0] if seen.shapes is None else first,
            seen.times,
            rtol=seen.settings["rtol"],
            atol=seen.settings["atol"],
            method=seen.method,
            options={**_options(seen), **options},
            **settings,
        )
        last = [part[-1] for part in ((answer,) if isinstance(answer, Tensor) else answer)]
        form = torch.stack([(part * cotangent).sum() for part, cotangent in zip(last, draw(last), strict=True)]).sum()
        found = torch.autograd.grad(form, [*first, *parameters], allow_unused=True, materialize_grads=True)
        return [gradient.detach() for gradient in found]


def draw(tensors: Sequence[Tensor]) -> Tensors:
    """The random linear form whose gradients are compared, as cotangents of these shapes."""
    generator = torch.Generator().manual_seed(4)
    return tuple(torch.randn(tensor.shape, generator=generator).to(tensor) for tensor in tensors)


def _options(seen: Seen) -> dict[str, Any]:
    """The options that the model gave, in the model's own sense of time."""
    own = {k: v for k, v in seen.settings.items() if k not in ("rtol", "atol", "norm")}
    if seen.backwards:
        own = {k: -torch.as_tensor(v) if k in ("step_t", "jump_t") else v for k, v in own.items()}
    return own
