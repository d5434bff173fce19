"""What an optimiser does to a small deviation of the weights: its rates, and the curvature that it bears.

Along an eigenvector of the Hessian with eigenvalue lambda, an optimiser of rate eta is a linear
recurrence. It stays bounded while eta * lambda is at most

    gradient descent        2
    heavy ball              (2 + 2b) / (1 - d)          momentum b, dampening d
    Nesterov                (2 + 2b) / (1 + 2b)
    Adam, RMSprop, Adagrad  the same of the Hessian preconditioned by P: for Adam (2 + 2 b1) / (1 - b1)

and the deviation changes sign at every step at that limit. Weight decay that is added to the gradient
adds to the Hessian. Decoupled decay w (AdamW) asks for eta (P^-1 H) / (1 - eta w / 2) instead: with a sign
that changes, (1 - eta w) x - eta m = -x.

References:
    Cohen et al. (2021), Gradient descent on neural networks typically occurs at the edge of stability, ICLR;
    Cohen et al. (2022), Adaptive gradient methods at the edge of stability, arXiv:2207.14484.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adagrad, Adam, Optimizer, RMSprop

from dynstab.core.errors import ConfigError

Group = dict[str, Any]
State = dict[str, Any]
"""What an optimiser remembers of one parameter."""


@dataclass(frozen=True, kw_only=True)
class UpdateRule:
    """An optimiser, linearised, at its present state.

    Attributes:
        name: for people, with the momentum. learning_rate: eta, the largest of all groups.
        limit: of eta * lambda. parameters: those that it moves.
        rates: (n,), of every weight relative to eta: the diagonal of P^-1, times its group's share of eta.
        decay: (n,), what weight decay adds to the diagonal of the Hessian.
        preconditioned: every weight has a rate of its own.
    """

    name: str
    learning_rate: float
    limit: float
    parameters: tuple[Tensor, ...]
    rates: Tensor
    decay: Tensor
    preconditioned: bool

    @property
    def threshold(self) -> float:
        """The largest stable eigenvalue of rates * (H + decay)."""
        return self.limit / self.learning_rate if self.learning_rate else inf


def update_rule(optimizer: Optimizer) -> UpdateRule:
    """The linearised optimiser. A weight that an adaptive one has not moved yet, for want of a gradient, rests.

    Raises:
        ConfigError: as for `limit_of`, or an adaptive optimiser that has taken no step yet.
    """
    name, limit = limit_of(optimizer)
    optimizer = unwrapped(optimizer)
    kind, trained = _kind_of(optimizer), _trained_groups(optimizer)
    rows = [(p, optimizer.state.get(p) or {}, group) for group in trained for p in group["params"]]
    moved = [row for row in rows if not kind.adaptive or float(row[1].get("step", 0)) >= 1]
    if rows and not moved:
        raise ConfigError(
            f"{type(optimizer).__name__} has taken no step yet",
            expected="an optimiser that has: its threshold is that of its preconditioner",
            remedy="ask again after optimizer.step()",
        )
    eta = max((float(group["lr"]) for _, _, group in moved), default=0.0)
    return UpdateRule(
        name=name,
        learning_rate=eta,
        limit=limit,
        parameters=tuple(parameter for parameter, _, _ in moved),
        rates=_joined([kind.rate(state, group, p) * _share(group, eta) for p, state, group in moved]),
        decay=_joined([torch.full_like(p, _added_decay(group)) for p, _, group in moved]),
        preconditioned=kind.adaptive,
    )


def limit_of(optimizer: Optimizer) -> tuple[str, float]:
    """The optimiser's name, and its limit of eta * lambda.

    Raises:
        ConfigError: an optimiser whose threshold is not known, one that maximises, or groups of different momentum.
    """
    optimizer = unwrapped(optimizer)
    kind, groups = _kind_of(optimizer), _trained_groups(optimizer) or optimizer.param_groups
    if any(group.get("maximize") for group in groups):
        raise ConfigError(
            f"{type(optimizer).__name__} with maximize=True",
            expected="an optimiser that minimises",
            remedy="minimise the negative instead",
        )
    names = {kind.limit(group) for group in groups}
    if len(names) > 1:
        raise ConfigError(
            f"groups with different momentum: {', '.join(sorted(name for name, _ in names))}",
            expected="one momentum (and dampening) for all groups: the threshold is that of one recurrence",
            remedy="ask for each group alone, with the others frozen by requires_grad_(False)",
        )
    ((name, limit),) = names
    return name.replace("Adam", type(optimizer).__name__) if isinstance(optimizer, Adam) else name, limit


def _kind_of(optimizer: Optimizer) -> _Kind:
    kind = next((kind for base, kind in _KINDS.items() if isinstance(optimizer, base)), None)
    if kind is None:
        raise ConfigError(
            f"the threshold of {type(optimizer).__name__} is not known",
            expected=f"one of {', '.join(kind.__name__ for kind in _KINDS)}, AdamW",
            remedy="dynstab.sharpness without an optimizer needs none",
        )
    return kind


def unwrapped(optimizer: Optimizer) -> Optimizer:
    """The optimiser inside of one that wraps it, as accelerate does."""
    inner = getattr(optimizer, "optimizer", None)
    return unwrapped(inner) if isinstance(inner, Optimizer) else optimizer


def _trained_groups(optimizer: Optimizer) -> list[Group]:
    """Without the frozen parameters, and without the groups in which all are."""
    groups = [{**group, "params": [p for p in group["params"] if p.requires_grad]} for group in optimizer.param_groups]
    return [group for group in groups if group["params"]]


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat([part.reshape(-1) for part in parts]) if parts else torch.empty(0)


def _share(group: Group, eta: float) -> float:
    """The group's rate over the largest, and what decoupled decay takes."""
    rate = float(group["lr"])
    decoupled = float(group["weight_decay"]) if group.get("decoupled_weight_decay") else 0.0
    return (rate / eta if eta else 1.0) / (1 - rate * decoupled / 2)


def _added_decay(group: Group) -> float:
    return 0.0 if group.get("decoupled_weight_decay") else float(group["weight_decay"])


@dataclass(frozen=True)
class _Kind:
    """Of one class of optimisers: group -> (name, limit), and the inverse preconditioner of a parameter by its state.

    Attributes:
        adaptive: that is not 1, and there is none before the first step.
    """

    limit: Callable[[Group], tuple[str, float]]
    rate: Callable[[State, Group, Tensor], Tensor]
    adaptive: bool = True


def _sgd_limit(group: Group) -> tuple[str, float]:
    momentum, dampening = float(group["momentum"]), float(group["dampening"])
    if momentum == 0:
        return "gradient descent", 2.0
    if group["nesterov"]:
        return f"Nesterov, momentum {momentum:g}", (2 + 2 * momentum) / (1 + 2 * momentum)
    # Dampened by 1, no gradient gets through.
    return f"heavy ball, momentum {momentum:g}", (2 + 2 * momentum) / (1 - dampening) if dampening != 1 else inf


def _adam_limit(group: Group) -> tuple[str, float]:
    beta = float(group["betas"][0])
    return f"Adam, beta1 {beta:g}", (2 + 2 * beta) / (1 - beta)


def _rmsprop_limit(group: Group) -> tuple[str, float]:
    momentum = float(group["momentum"])
    return f"RMSprop, momentum {momentum:g}" if momentum else "RMSprop", 2 + 2 * momentum


def _adam_rate(state: State, group: Group, _parameter: Tensor) -> Tensor:
    step, (beta1, beta2) = float(state["step"]), group["betas"]
    second = state["max_exp_avg_sq"] if group["amsgrad"] else state["exp_avg_sq"]
    root = (second / (1 - float(beta2) ** step)).sqrt() + group["eps"]
    return 1 / ((1 - float(beta1) ** step) * root)


def _rmsprop_rate(state: State, group: Group, _parameter: Tensor) -> Tensor:
    second = state["square_avg"] - state["grad_avg"].square() if group["centered"] else state["square_avg"]
    return 1 / (second.sqrt() + group["eps"])


def _adagrad_rate(state: State, group: Group, _parameter: Tensor) -> Tensor:
    slowed = 1 + (float(state["step"]) - 1) * group["lr_decay"]
    return 1 / (slowed * (state["sum"].sqrt() + group["eps"]))


_KINDS: dict[type[Optimizer], _Kind] = {
    SGD: _Kind(_sgd_limit, lambda _state, _group, parameter: torch.ones_like(parameter), adaptive=False),
    Adam: _Kind(_adam_limit, _adam_rate),
    RMSprop: _Kind(_rmsprop_limit, _rmsprop_rate),
    Adagrad: _Kind(lambda group: ("Adagrad", 2.0), _adagrad_rate),
}
