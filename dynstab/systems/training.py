"""Training as a trajectory: the states are the weights, with what the optimiser remembers, the steps its updates.

One update is F(theta, slots) = update(theta, slots, grad L(theta)) with an elementwise `update`, so its Jacobian is
that of `update`, with the Hessian where the gradient enters: for plain gradient descent dF = I - eta H. What the
optimiser remembers is told in the unit of the weights, see `training_updates`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from dynstab.core.errors import ConfigError, InputError
from dynstab.linear.layout import Layout
from dynstab.linear.operator import JacobianOperator
from dynstab.systems.hessian import HessianOperator, Loss
from dynstab.systems.optimizers import unwrapped
from dynstab.systems.training_updates import Tensors, common_flags, constants_of, update_kind
from dynstab.systems.trajectory import State, Step, Trajectory


def training_trajectory(model: nn.Module, loss: Loss, optimizer: Optimizer, steps: int = 8) -> Trajectory:
    """The next updates of a training run on one batch, and their Jacobians; neither model nor optimiser moves.

    States are (theta,) for SGD, (theta, momentum) with momentum, (theta, m, v) for Adam and AdamW, from their
    present values on, at the present learning rate; all but theta are in its unit, see `training_updates`. Gradient
    descent is residual: h + f(h) with f = -eta grad L, so that its stability is that of an Euler step.

    Args:
        loss: model -> tensor with one entry, on a batch that it holds.
        steps: how many updates. Each holds its weights; its Hessian is computed when it is asked for.

    Raises:
        ConfigError: the optimiser is none of SGD, Adam and AdamW, maximises, uses AMSGrad, or mixes groups
            of another kind. InputError: the loss is no function of the weights, see `HessianOperator`.
    """
    if not isinstance(steps, int) or steps < 1:
        raise ConfigError(f"steps={steps!r}", expected="a whole number of updates, one at least")
    map_ = _UpdateMap(model, loss, unwrapped(optimizer))
    values: list[Tensors] = [map_.start]
    for index in range(steps):
        values.append(map_(index, values[-1]))
    layout = Layout(shapes=tuple(tensor.shape for tensor in map_.start))
    scales = [map_.scales(index, value) for index, value in enumerate(values)]
    memory = "; what it remembers is in the unit of the weights" if map_.slots else ""
    return Trajectory(
        kind="training",
        time_unit="update",
        states=tuple(
            State(index=i, name=f"{map_.remembered} {i}", value=_scaled(value, scale), layout=layout)
            for i, (value, scale) in enumerate(zip(values, scales, strict=True))
        ),
        steps=tuple(
            _step(UpdateJacobian(map_, i, values[i], layout, (scales[i], scales[i + 1]))) for i in range(steps)
        ),
        rung="Hessian-vector products",
        notes=(f"{map_.name} at a fixed learning rate, on one batch{memory}",),
        routes={"double backward": steps},
    )


def _step(jacobian: UpdateJacobian) -> Step:
    index, descent = jacobian.index, not jacobian.map.slots
    before, after = jacobian.scales

    def update(tensors: Tensors) -> Tensors:
        return _scaled(jacobian.map(index, _unscaled(tensors, before)), after)

    return Step(
        index=index,
        name=f"update {index}",
        kind="residual" if descent else "plain",
        source=index,
        target=index + 1,
        jacobian=jacobian,
        function=update,
        residual_coefficient=1.0 if descent else None,
    )


class _UpdateMap:
    """F: (theta, slots) -> (theta', slots'), as the optimiser would at its (index + 1)-th step from now.

    Attributes:
        start: the present state. slots: what it holds beside the weights.
        name: of the optimiser. remembered: what a state holds, in words.
    """

    def __init__(self, model: nn.Module, loss: Loss, optimizer: Optimizer) -> None:
        self._kind = update_kind(optimizer)
        groups = [{**g, "params": [p for p in g["params"] if p.requires_grad]} for g in optimizer.param_groups]
        self._flags = common_flags(optimizer, self._kind, groups)
        self._model, self._loss = model, loss
        self._parameters = tuple(p for group in groups for p in group["params"])
        if not self._parameters:
            raise InputError(
                "the optimizer moves no parameter that requires a gradient",
                expected="at least one",
                remedy="call requires_grad_(True) on the parameters that it trains",
            )
        self._constants = constants_of(self._kind, groups)
        self.name = type(optimizer).__name__
        memoryless = isinstance(optimizer, SGD) and not any(float(g["momentum"]) for g in groups)
        self.slots = () if memoryless else self._kind.slots
        self.remembered = " and ".join(("weights", *self.slots[-1:])) if self.slots else "weights"
        states = [optimizer.state.get(p) or {} for p in self._parameters]
        self._taken = max(float(state.get("step", 0)) for state in states)
        self._fresh = all(state.get("momentum_buffer") is None for state in states)
        theta = torch.cat([p.detach().reshape(-1) for p in self._parameters])
        self.start = (theta.clone(), *(self._held(states, name) for name in self.slots))

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

    def scales(self, index: int, state: Tensors) -> Tensors:
        """What multiplies each slot of the index-th state to be in the unit of the weights."""
        return self._kind.scales(self._constants, self._taken + index, state[1:])


class UpdateJacobian(JacobianOperator):
    """dF at one state: the update's own derivative, with H where the gradient enters.

    Attributes:
        map, index: F and which update it is. scales: of the slots before and after it, (n,) each.
    """

    def __init__(
        self, map_: _UpdateMap, index: int, state: Tensors, layout: Layout, scales: tuple[Tensors, Tensors]
    ) -> None:
        super().__init__(layout, layout, state[0].dtype, state[0].device)
        self.map, self.index, self.scales = map_, index, scales
        self._state = state

    @property
    def routes(self) -> dict[str, int]:
        return {"double backward": 1}

    def push_tensors(self, tangents: Tensors) -> Tensors:
        tangents = _unscaled(tangents, self.scales[0])
        hessian = self.map.hessian(self._state[0])
        update, point = self.map.update(self.index), (*self._state, hessian.gradient)
        moving = (*tangents, _times(hessian, tangents[0]))
        self.products += len(tangents[0])
        return _scaled(torch.func.vmap(lambda *t: torch.func.jvp(update, point, t)[1])(*moving), self.scales[1])

    def pull_tensors(self, cotangents: Tensors) -> Tensors:
        cotangents = _scaled(cotangents, self.scales[1])
        hessian = self.map.hessian(self._state[0])
        transpose = torch.func.vjp(self.map.update(self.index), *self._state, hessian.gradient)[1]
        theta, *rest, gradient = torch.func.vmap(lambda *c: transpose(c))(*cotangents)
        self.products += len(cotangents[0])
        return _unscaled((theta + _times(hessian, gradient), *rest), self.scales[0])


def _times(hessian: HessianOperator, rows: Tensor) -> Tensor:
    """H applied to rows (k, n)."""
    return hessian.matmat(rows.mT.unsqueeze(0))[0].mT


def _scaled(tensors: Tensors, scales: Tensors) -> Tensors:
    """(theta, *slots) with the slots in the unit of the weights."""
    return tensors[0], *(slot * scale for slot, scale in zip(tensors[1:], scales, strict=True))


def _unscaled(tensors: Tensors, scales: Tensors) -> Tensors:
    return tensors[0], *(slot / scale for slot, scale in zip(tensors[1:], scales, strict=True))
