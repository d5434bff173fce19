"""Exponents, gains and gradient flow of a network from one push and one pull, with directions kept from last time.

A frame V of input directions, orthonormal, is pushed through the whole network, J V = U S Q^T, and U is
pulled back: the singular values of J^T U are lower bounds of those of J, and its left singular vectors are
a better V for the next probe. Training moves the weights little between probes, so that one pair a
probe follows the leading directions (simultaneous iteration; the residual ||J^T u_1 - s_1 v_1|| / s_1
says how well). The same pull carries isotropic cotangents from the last state, whose lengths are the gradient
flow, and at every step fresh ones, whose gains are the step's.

References:
    Benettin et al. (1980), Meccanica 15; Schoenholz et al. (2017), Deep Information Propagation; Hutchinson (1990).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log

import torch
from torch import Tensor

from dynstab.core.estimate import CONVERGED
from dynstab.estimators.orthogonal import orthonormalise, random_frame
from dynstab.estimators.result import NON_FINITE
from dynstab.measures.probes import squared_norms
from dynstab.monitor.network import Linearised

CLOSE = 0.2
"""Residual at which a direction counts as found: the exponent is then known to ln(1.2) over all steps."""

_FIRST_PAIRS = 8
"""Pairs at most before the first reading. A reading adds a second pair where its residual is above half of `CLOSE`."""

_COTANGENTS, _FRESH = 2, 2


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The numbers of a `Probe`, means over the inputs."""

    exponents: tuple[float, ...]
    step_gains: tuple[float, ...]
    gradient_flow: tuple[float, ...]
    outcome: str


class Sweeps:
    """Readings of one network, one after another.

    Args:
        k: leading exponents. seed: of the isotropic draws, which are the same at every reading, so that
            a difference between two readings is the network's.
    """

    def __init__(self, k: int, *, seed: int = 0) -> None:
        self.k, self.seed = k, seed
        self._frame: Tensor | None = None

    @torch.no_grad()
    def settle(self, network: Linearised) -> None:
        """Find the leading directions, from random ones where none are known: later readings only follow them."""
        pushed = _push(network, self._start(network))
        for _ in range(_FIRST_PAIRS):
            pulled = _pull(network, pushed)
            self._frame = pulled.frame if pulled.finite else None
            if not pulled.finite or pulled.residual <= CLOSE / 2:
                return
            pushed = _push(network, pulled.frame)

    @torch.no_grad()
    def read(self, network: Linearised) -> Reading:
        """One reading; the directions found are where the next one starts."""
        if self._frame is None:
            self.settle(network)
        pushed = _push(network, self._start(network))
        pulled = _pull(network, pushed, self.seed)
        if pulled.finite and pulled.residual > CLOSE / 2:
            again = _pull(network, _push(network, pulled.frame))
            pulled = replace(again, gains=pulled.gains, lengths=pulled.lengths)
        self._frame = pulled.frame if pulled.finite else None
        return _reading(network, pulled)

    def _start(self, network: Linearised) -> Tensor:
        first = network.operators[0]
        shape = first.samples, first.cols, min(self.k, *(min(operator.shape) for operator in network.operators))
        if self._frame is not None and self._frame.shape == shape:
            return self._frame
        return random_frame(*shape, seed=self.seed, dtype=first.dtype, device=first.device)


@dataclass(frozen=True, kw_only=True)
class _Pushed:
    """What became of a frame V: `left` is U (samples, rows, k), `right` V Q, `logs` ln S, float64, descending."""

    left: Tensor
    right: Tensor
    logs: Tensor


@dataclass(frozen=True, kw_only=True)
class _Pulled:
    """What became of U, and of the isotropic cotangents that went with it.

    Attributes:
        frame: where the next push starts. logs: ln of the singular values of J^T U, (samples, k), descending.
        finite: neither NaN nor infinity nor zero on the way. residual: of the leading pair, the largest over inputs.
        gains: chi of every step, (samples, steps). lengths: ln of the isotropic cotangents' lengths at every state
            over those at the last one, (samples, states, cotangents). Both empty where none went along.
    """

    frame: Tensor
    logs: Tensor
    finite: bool
    residual: float
    gains: Tensor
    lengths: Tensor


def _push(network: Linearised, frame: Tensor) -> _Pushed:
    columns, scale = frame, torch.zeros(len(frame), dtype=torch.float64, device=frame.device)
    for operator in network.operators:
        columns = operator.matmat(columns)
        # One factor for all columns: their lengths and angles are what is measured.
        size = squared_norms(columns).amax(dim=1).sqrt()
        columns = columns / _nonzero(size)[:, None, None].to(columns.dtype)
        scale = scale + size.log()
    q, r = torch.linalg.qr(columns.double().nan_to_num())
    u, values, vt = torch.linalg.svd(r)
    return _Pushed(
        left=(q @ u).to(columns.dtype), right=frame @ vt.mT.to(frame.dtype), logs=values.log() + scale[:, None]
    )


def _pull(network: Linearised, pushed: _Pushed, seed: int | None = None) -> _Pulled:
    """Pull U back, and with a seed the isotropic cotangents too."""
    columns, k = pushed.left, pushed.left.shape[2]
    generator = None if seed is None else torch.Generator(columns.device).manual_seed(seed)
    if generator is not None:
        columns = torch.cat([columns, _isotropic(columns, _COTANGENTS, generator)], dim=2)
    columns, start = _normalised(columns)
    lengths, gains = [torch.zeros_like(start)], []
    for operator in reversed(network.operators):
        if generator is None:
            columns, grown = _normalised(operator.rmatmat(columns))
        else:
            fresh = _isotropic(columns, _FRESH, generator)
            both = operator.rmatmat(torch.cat([columns, fresh], dim=2))
            gains.append(squared_norms(both[:, :, -_FRESH:]).sum(dim=1) / squared_norms(fresh).sum(dim=1))
            columns, grown = _normalised(both[:, :, :-_FRESH])
        lengths.append(lengths[-1] + grown)
    logs = torch.stack(lengths[::-1], dim=1)
    unit, first = columns[:, :, :k], logs[:, 0, :k]
    finite = bool(unit.isfinite().all() and first[:, 0].isfinite().all())
    back = unit[:, :, 0].double() * (first[:, 0] - pushed.logs[:, 0]).exp()[:, None]
    return _Pulled(
        frame=orthonormalise(unit)[0] if finite else unit,
        logs=_log_singular_values(unit, first),
        finite=finite,
        residual=float((back - pushed.right[:, :, 0]).norm(dim=1).amax()),
        gains=torch.stack(gains[::-1], dim=1) if gains else logs.new_empty(0),
        lengths=logs[:, :, k:],
    )


def _reading(network: Linearised, pulled: _Pulled) -> Reading:
    """Means over the inputs: of exponents, of gains, of the logarithms of the gradient's gain."""
    sizes, count = network.sizes.log(), len(network.operators)
    gains = (pulled.gains.log() + 2 * (sizes[:, :-1] - sizes[:, 1:])).exp().mean(dim=0).log()
    flow = (torch.logsumexp(2 * pulled.lengths, dim=2) - log(_COTANGENTS)) / 2
    # A gradient that is zero is so on any scale.
    flow = (flow + sizes - sizes[:, -1:]).where(~flow.isneginf(), -torch.inf).mean(dim=0)
    if not pulled.finite:
        outcome = f"{NON_FINITE}, or zero: no direction is left to follow"
    elif pulled.residual > CLOSE:
        outcome = f"the leading direction is not settled: residual {pulled.residual:.2g}"
    else:
        outcome = CONVERGED
    return Reading(
        exponents=tuple((pulled.logs / count).mean(dim=0).tolist()),
        step_gains=tuple(gains.tolist()),
        gradient_flow=tuple(flow.tolist()),
        outcome=outcome,
    )


def _log_singular_values(unit: Tensor, logs: Tensor) -> Tensor:
    """Of the columns unit * exp(logs), whose lengths no float may hold: (samples, k), descending."""
    weights = (logs - logs[:, :1]).clamp(max=300.0).exp()
    return torch.linalg.svdvals((unit.double() * weights[:, None, :]).nan_to_num()).log() + logs[:, :1]


def _isotropic(like: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return torch.randn((*like.shape[:2], count), generator=generator, dtype=like.dtype, device=like.device)


def _normalised(columns: Tensor) -> tuple[Tensor, Tensor]:
    """Unit columns, and ln of the lengths that they had: -inf for a column that is zero."""
    length = squared_norms(columns).sqrt()
    return columns / _nonzero(length)[:, None, :].to(columns.dtype), length.log()


def _nonzero(size: Tensor) -> Tensor:
    return torch.where(size > 0, size, 1.0)
