"""Training as a trajectory: the states are the weights, with what the optimiser remembers, the steps its updates.

One update is F(theta, slots) = update(theta, slots, grad L(theta)) with an elementwise `update`, so its Jacobian is
that of `update`, with the Hessian where the gradient enters: for plain gradient descent dF = I - eta H.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from dynstab.core.errors import ConfigError, InputError
from dynstab.linear.layout import Layout
from dynstab.linear.operator import JacobianOperator
from dynstab.systems.hessian import HessianOperator, Loss
from dynstab.systems.optimizers import unwrapped
from dynstab.systems.trajectory import State, Step, Trajectory

Tensors = tuple[Tensor, ...]
Constants = dict[str, Tensor]
"""The optimiser's settings for every weight, (n,) each."""


def training_trajectory(model: nn.Module, loss: Loss, optimizer: Optimizer, steps: int = 8) -> Trajectory:
    """The next updates of a training run on one batch, and their Jacobians; neither model nor optimiser moves.

    States are (theta,) for SGD, (theta, momentum) with momentum, (theta, m, v) for Adam and AdamW, from their
    present values on, at the present learning rate. Gradient descent is residual: h + f(h) with f = -eta grad L,
    so that its stability is that of an Euler step.

    Args:
        loss: model -> tensor with one entry, on a batch that it holds.
        steps: how many updates. Each holds its weights; its Hessian is computed when it is asked for.

    Raises:
        ConfigError: the optimiser is none of SGD, Adam and AdamW, maximises, uses AMSGrad, or mixes groups
            of another kind. InputError: the loss is no function of the weights, see `HessianOperator`.
    """
    if steps < 1:
        raise ConfigError(f"steps={steps}", expected="a positive number of updates")
    map_ = _UpdateMap(model, loss, unwrapped(optimizer))
    values: list[Tensors] = [map_.start]
    for index in range(steps):
        values.append(map_(index, values[-1]))
    layout = Layout(shapes=tuple(tensor.shape for tensor in map_.start))
    return Trajectory(
        kind="training",
        time_unit="update",
        states=tuple(
            State(index=i, name=f"{map_.remembered} {i}", value=value, layout=layout) for i, value in enumerate(values)
        ),
        steps=tuple(_step(map_, index, value, layout) for index, value in enumerate(values[:-1])),
        rung="Hessian-vector products",
        notes=(f"{map_.name} at a fixed learning rate, on one batch",),
        routes={"double backward": steps},
    )


def _step(map_: _UpdateMap, index: int, value: Tensors, layout: Layout) -> Step:
    descent = len(value) == 1

    def update(tensors: Tensors) -> Tensors:
        return map_(index, tensors)

    return Step(
        index=index,
        name=f"update {index}",
        kind="residual" if descent else "plain",
        source=index,
        target=index + 1,
        jacobian=UpdateJacobian(map_, index, value, layout),
        function=update,
        residual_coefficient=1.0 if descent else None,
    )


class _UpdateMap:
    """F: (theta, slots) -> (theta', slots'), as the optimiser would at its (index + 1)-th step from now.

    Attributes:
        start: the present state. name: of the optimiser. remembered: what a state holds.
    """

    def __init__(self, model: nn.Module, loss: Loss, optimizer: Optimizer) -> None:
        kind = next((kind for kind in _KINDS if isinstance(optimizer, kind)), None)
        if kind is None:
            raise ConfigError(f"the updates of {type(optimizer).__name__}", expected="SGD, Adam or AdamW")
        groups = [{**g, "params": [p for p in g["params"] if p.requires_grad]} for g in optimizer.param_groups]
        self._flags = _common_flags(optimizer, groups)
        self._model, self._loss, self._kind = model, loss, _KINDS[kind]
        self._parameters = tuple(p for group in groups for p in group["params"])
        if not self._parameters:
            raise InputError("the optimizer moves no parameter that requires a gradient", expected="at least one")
        self._constants = {name: _spread(groups, name) for name in self._kind.settings if name != "betas"}
        if "betas" in self._kind.settings:
            flat = [{**g, "beta1": g["betas"][0], "beta2": g["betas"][1]} for g in groups]
            self._constants |= {name: _spread(flat, name) for name in ("beta1", "beta2")}
        self.name = type(optimizer).__name__
        self._slots = self._kind.slots if kind is Adam or any(float(g["momentum"]) for g in groups) else ()
        self.remembered = " and ".join(("weights", *self._slots[-1:])) if self._slots else "weights"
        states = [optimizer.state.get(p) or {} for p in self._parameters]
        self._taken = max(float(state.get("step", 0)) for state in states)
        self._fresh = all(state.get("momentum_buffer") is None for state in states)
        theta = torch.cat([p.detach().reshape(-1) for p in self._parameters])
        self.start = (theta.clone(), *(self._held(states, name) for name in self._slots))

    def _held(self, states: list[dict[str, Any]], name: str) -> Tensor:
        pairs = zip(states, self._parameters, strict=True)
        rows = [torch.zeros_like(p) if s.get(name) is None else s[name].detach() for s, p in pairs]
        return torch.cat([row.reshape(-1) for row in rows])

    def hessian(self, theta: Tensor) -> HessianOperator:
        return HessianOperator(self._model, self._loss, self._parameters, theta)

    def __call__(self, index: int, state: Tensors) -> Tensors:
        return self.update(index)(*state, self.hessian(state[0]).gradient)

    def update(self, index: int) -> Callable[..., Tensors]:
        """(theta, *slots, gradient) -> (theta', *slots'), elementwise."""
        settings = {**self._flags, "time": self._taken + index + 1, "fresh": self._fresh and index == 0}

        def update(*tensors: Tensor) -> Tensors:
            return self._kind.update(tensors[:-1], tensors[-1], self._constants, settings)

        return update


class UpdateJacobian(JacobianOperator):
    """dF at one state: the update's own derivative, with H where the gradient enters."""

    def __init__(self, map_: _UpdateMap, index: int, state: Tensors, layout: Layout) -> None:
        super().__init__(layout, layout, state[0].dtype, state[0].device)
        self._map, self._index, self._state = map_, index, state

    @property
    def routes(self) -> dict[str, int]:
        return {"double backward": 1}

    def push_tensors(self, tangents: Tensors) -> Tensors:
        hessian = self._map.hessian(self._state[0])
        update, point = self._map.update(self._index), (*self._state, hessian.gradient)
        moving = (*tangents, _times(hessian, tangents[0]))
        self.products += len(tangents[0])
        return torch.func.vmap(lambda *t: torch.func.jvp(update, point, t)[1])(*moving)

    def pull_tensors(self, cotangents: Tensors) -> Tensors:
        hessian = self._map.hessian(self._state[0])
        transpose = torch.func.vjp(self._map.update(self._index), *self._state, hessian.gradient)[1]
        theta, *rest, gradient = torch.func.vmap(lambda *c: transpose(c))(*cotangents)
        self.products += len(cotangents[0])
        return (theta + _times(hessian, gradient), *rest)


def _times(hessian: HessianOperator, rows: Tensor) -> Tensor:
    """H applied to rows (k, n)."""
    return hessian.matmat(rows.mT.unsqueeze(0))[0].mT


def _sgd(state: Tensors, gradient: Tensor, c: Constants, settings: dict[str, Any]) -> Tensors:
    theta, gradient = state[0], gradient + c["weight_decay"] * state[0]
    if len(state) == 1:
        return (theta - c["lr"] * gradient,)
    # torch starts the momentum with the first gradient in full, whatever the dampening.
    kept = 1.0 if settings["fresh"] else 1 - c["dampening"]
    velocity = c["momentum"] * state[1] + kept * gradient
    direction = gradient + c["momentum"] * velocity if settings["nesterov"] else velocity
    return theta - c["lr"] * direction, velocity


def _adam(state: Tensors, gradient: Tensor, c: Constants, settings: dict[str, Any]) -> Tensors:
    theta, first, second = state
    decoupled, time = settings["decoupled_weight_decay"], settings["time"]
    if not decoupled:
        gradient = gradient + c["weight_decay"] * theta
    first = c["beta1"] * first + (1 - c["beta1"]) * gradient
    second = c["beta2"] * second + (1 - c["beta2"]) * gradient.square()
    shrunk = theta * (1 - c["lr"] * c["weight_decay"]) if decoupled else theta
    # The root has no derivative at 0, where no gradient has ever come.
    seen = second > 0
    unbiased = torch.where(seen, second / (1 - c["beta2"] ** time), 1.0)
    scale = torch.where(seen, unbiased.sqrt(), 0.0) + c["eps"]
    return shrunk - c["lr"] * (first / (1 - c["beta1"] ** time)) / scale, first, second


@dataclass(frozen=True)
class _Kind:
    """Of one class of optimisers: its update, what it remembers, its settings by weight and those in common."""

    update: Callable[[Tensors, Tensor, Constants, dict[str, Any]], Tensors]
    slots: tuple[str, ...]
    settings: tuple[str, ...]
    flags: tuple[str, ...]


_KINDS: dict[type[Optimizer], _Kind] = {
    SGD: _Kind(_sgd, ("momentum_buffer",), ("lr", "weight_decay", "momentum", "dampening"), ("nesterov",)),
    Adam: _Kind(
        _adam, ("exp_avg", "exp_avg_sq"), ("lr", "weight_decay", "betas", "eps"), ("decoupled_weight_decay", "amsgrad")
    ),
}


def _common_flags(optimizer: Optimizer, groups: list[dict[str, Any]]) -> dict[str, Any]:
    flags = {}
    for name in (*next(kind.flags for k, kind in _KINDS.items() if isinstance(optimizer, k)), "maximize"):
        values = {bool(group.get(name)) for group in groups}
        if len(values) > 1:
            raise ConfigError(f"groups that differ in {name}", expected="one kind of update for all weights")
        flags[name] = values.pop()
        if flags[name] and name in ("maximize", "amsgrad"):
            raise ConfigError(f"{type(optimizer).__name__} with {name}=True", expected="the plain optimiser")
    return flags


def _spread(groups: list[dict[str, Any]], name: str) -> Tensor:
    """A setting of the groups for every weight, (n,)."""
    rows = [torch.full_like(p, float(group[name])).reshape(-1) for group in groups for p in group["params"]]
    return torch.cat(rows).detach()
