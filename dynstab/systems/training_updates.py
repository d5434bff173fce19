"""What one update of an optimiser does to every weight, and the unit in which its memory compares with the weights.

An update is elementwise: (theta, slots, gradient) -> (theta', slots'). The slots have units of their own: beside
weights of 0.1 a second moment of 1e-12 makes d theta' / d v of 1e12, which says nothing of growth. So each slot is
told in the unit of the weights, as the displacement that it stands for,

    eta m / (c1 P)   and   eta v / (c2 P^2),   P = sqrt(v / c2) + eps   for Adam,   eta m   for SGD,

with the bias corrections c and P as they are at that state: heavy ball is [[1 - eta H, -b], [eta H, b]]. Theta stays
as it is. A change of coordinates that stays bounded leaves the exponents of a long trajectory as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer

from dynstab.core.errors import ConfigError

Tensors = tuple[Tensor, ...]
Constants = dict[str, Tensor]
"""The optimiser's settings for every weight, (n,) each."""

Group = dict[str, Any]


@dataclass(frozen=True)
class UpdateKind:
    """Of one class of optimisers: its update, what it remembers, its settings by weight and those in common.

    Attributes:
        scales: (constants, updates taken, slots) -> what multiplies each slot to be in the weights' unit, (n,) each.
    """

    update: Callable[[Tensors, Tensor, Constants, Group], Tensors]
    scales: Callable[[Constants, float, Tensors], Tensors]
    slots: tuple[str, ...]
    settings: tuple[str, ...]
    flags: tuple[str, ...]


def update_kind(optimizer: Optimizer) -> UpdateKind:
    """The update of an optimiser.

    Raises:
        ConfigError: it is none of SGD, Adam and AdamW.
    """
    kind = next((kind for base, kind in _KINDS.items() if isinstance(optimizer, base)), None)
    if kind is None:
        raise ConfigError(
            f"the updates of {type(optimizer).__name__}",
            expected="SGD, Adam or AdamW",
            remedy="dynstab.training_stability knows more optimisers, dynstab.sharpness needs none",
        )
    return kind


def common_flags(optimizer: Optimizer, kind: UpdateKind, groups: list[Group]) -> Group:
    """The settings that all weights share.

    Raises:
        ConfigError: groups that differ in one of them, AMSGrad, or maximisation.
    """
    flags = {}
    for name in (*kind.flags, "maximize"):
        values = {bool(group.get(name)) for group in groups}
        if len(values) > 1:
            raise ConfigError(
                f"groups that differ in {name}",
                expected="one kind of update for all weights",
                remedy=f"give every group the same {name}",
            )
        flags[name] = values.pop()
        if flags[name] and name in ("maximize", "amsgrad"):
            raise ConfigError(
                f"{type(optimizer).__name__} with {name}=True",
                expected="the plain optimiser",
                remedy="minimise the negative instead" if name == "maximize" else "analyse it with amsgrad=False",
            )
    return flags


def constants_of(kind: UpdateKind, groups: list[Group]) -> Constants:
    """The settings of every weight."""
    found = {name: _spread(groups, name) for name in kind.settings if name != "betas"}
    if "betas" in kind.settings:
        flat = [{**g, "beta1": g["betas"][0], "beta2": g["betas"][1]} for g in groups]
        found |= {name: _spread(flat, name) for name in ("beta1", "beta2")}
    return found


def _spread(groups: list[Group], name: str) -> Tensor:
    """A setting of the groups for every weight, (n,)."""
    rows = [torch.full_like(p, float(group[name])).reshape(-1) for group in groups for p in group["params"]]
    return torch.cat(rows).detach()


def _sgd(state: Tensors, gradient: Tensor, c: Constants, settings: Group) -> Tensors:
    theta, gradient = state[0], gradient + c["weight_decay"] * state[0]
    if len(state) == 1:
        return (theta - c["lr"] * gradient,)
    # torch starts the momentum with the first gradient in full, whatever the dampening.
    kept = 1.0 if settings["fresh"] else 1 - c["dampening"]
    velocity = c["momentum"] * state[1] + kept * gradient
    direction = gradient + c["momentum"] * velocity if settings["nesterov"] else velocity
    return theta - c["lr"] * direction, velocity


def _sgd_scales(c: Constants, time: float, slots: Tensors) -> Tensors:
    return (_rate(c),) * len(slots)


def _adam(state: Tensors, gradient: Tensor, c: Constants, settings: Group) -> Tensors:
    theta, first, second = state
    decoupled, time = settings["decoupled_weight_decay"], settings["time"]
    if not decoupled:
        gradient = gradient + c["weight_decay"] * theta
    first = c["beta1"] * first + (1 - c["beta1"]) * gradient
    second = c["beta2"] * second + (1 - c["beta2"]) * gradient.square()
    shrunk = theta * (1 - c["lr"] * c["weight_decay"]) if decoupled else theta
    return shrunk - c["lr"] * (first / (1 - c["beta1"] ** time)) / _root(second, c, time), first, second


def _adam_scales(c: Constants, time: float, slots: Tensors) -> Tensors:
    time = max(time, 1.0)  # before the first update there is nothing to correct
    root = _root(slots[1], c, time)
    root = torch.where(root > 0, root, 1.0)
    return _rate(c) / root / (1 - c["beta1"] ** time), _rate(c) / root.square() / (1 - c["beta2"] ** time)


def _root(second: Tensor, c: Constants, time: float) -> Tensor:
    """Adam's preconditioner, sqrt(v / c2) + eps."""
    # The root has no derivative at 0, where no gradient has ever come.
    seen = second > 0
    unbiased = torch.where(seen, second / (1 - c["beta2"] ** time), 1.0)
    return torch.where(seen, unbiased.sqrt(), 0.0) + c["eps"]


def _rate(c: Constants) -> Tensor:
    """Every weight's rate; the largest for a weight that rests at rate 0, which has no displacement of its own."""
    largest = c["lr"].amax()
    return torch.where(c["lr"] > 0, c["lr"], torch.where(largest > 0, largest, 1.0))


_KINDS: dict[type[Optimizer], UpdateKind] = {
    SGD: UpdateKind(
        _sgd, _sgd_scales, ("momentum_buffer",), ("lr", "weight_decay", "momentum", "dampening"), ("nesterov",)
    ),
    Adam: UpdateKind(
        _adam,
        _adam_scales,
        ("exp_avg", "exp_avg_sq"),
        ("lr", "weight_decay", "betas", "eps"),
        ("decoupled_weight_decay", "amsgrad"),
    ),
}
