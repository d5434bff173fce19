"""QR exponents along a chain of operators, and the R factors that finite-time exponents are made of.

A frame of orthonormal tangents is pushed, J_l Q_l = Q_{l+1} R_l, and lambda_i = (1/L) sum_l ln |R_ii|.
One factorisation may cover several steps: the columns lose their independence at the rate at which
exponents differ, so the next one is due when the predicted ratio within R reaches eps^(-1/2) or so. Where that
prediction fails the interval is walked again step by step.

A column whose R_ii is rounding noise of the column itself has lost its direction: its exponent is -inf
from then on, and it moves behind the others, which are not to be measured against an arbitrary vector.

References:
    Benettin, Galgani, Giorgilli & Strelcyn (1980), Meccanica 15; Geist, Parlitz & Lauterborn (1990),
    Prog. Theor. Phys. 83.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite, log

import torch
from torch import Tensor

from dynstab.core.estimate import Label
from dynstab.estimators.adapters import workable
from dynstab.estimators.elimination import eliminate
from dynstab.estimators.orthogonal import random_frame
from dynstab.estimators.ranked_qr import RankedQR, ranked_qr
from dynstab.estimators.result import Result, blank
from dynstab.linear.operator import JacobianOperator, LinearOperator

LONGEST_INTERVAL = 100
_MANY = 64  # columns from which elimination is cheaper than QR


class Stretch(JacobianOperator):
    """One step of a chain, or several in one operator.

    Attributes:
        steps: how many.
    """

    steps: int

    @abstractmethod
    def parts(self) -> Sequence[LinearOperator]:
        """The single steps, once the stretch was pushed."""


@dataclass(frozen=True, kw_only=True)
class QRExponents(Result):
    """QR exponents, (samples, k), nat per step, descending; errors are batch-means standard errors over the chain.

    Attributes:
        logs: (samples, intervals, k), sum of ln R_ii over each interval. lengths: steps in each interval.
        factors: the R factors, (samples, k', k) each, in the order in which they act; empty where not kept.
        frame: the last Q, (samples, size, k').
    """

    logs: Tensor
    lengths: tuple[int, ...]
    factors: tuple[Tensor, ...]
    frame: Tensor


def qr_exponents(
    operators: Sequence[LinearOperator],
    k: int | None = None,
    *,
    frame: Tensor | None = None,
    keep_factors: bool = True,
    longest: int | None = None,
    floor: float | None = None,
    seed: int = 0,
) -> QRExponents:
    """Exponents of the chain of operators, given in the order in which they act.

    Args:
        k: how many; None is the full spectrum. frame: the first Q (samples, cols, k), random by default.
        longest: steps between two factorisations at most; by default at least 20 intervals are made,
            so that the standard errors mean something.
        floor: see `FrameWalk`; by default 16 times the rounding of the operators' dtype.

    Raises:
        ValueError: no operator.
    """
    if not operators:
        raise ValueError("exponents need at least one step")
    first = operators[0]
    if frame is None:
        width, dtype = min(k or first.cols, first.cols), workable(first).dtype
        frame = random_frame(first.samples, first.cols, width, seed=seed, dtype=dtype, device=first.device)
    if longest is None:
        longest = min(LONGEST_INTERVAL, max(1, len(operators) // 20))
    floor = 16 * torch.finfo(first.dtype).eps if floor is None else floor
    walk = FrameWalk(frame, keep_factors=keep_factors, longest=longest, floor=floor)
    for operator in operators:
        walk.push(operator)
    return walk.finish()


@dataclass
class FrameWalk:
    """A frame on its way along a chain: push the steps one by one, then `finish`.

    Attributes:
        frame: orthonormal columns (samples, size, k), the Q of the last factorisation.
        keep_factors: whether R factors are kept. memory_limit: bytes of them; past it they are dropped.
        longest: steps between two factorisations at most. orthogonal: steps between two by QR at most, by default
            `longest`; in between, many columns are kept independent by elimination, see `elimination`.
        floor: a direction is lost where R_ii is at or below that share of its own column; by default 16
            times the rounding of the frame's dtype.
        reach: share of ln(1 / floor) that the ratio within R may grow to: the smallest R_ii is known
            to a relative floor^(1 - reach).
    """

    frame: Tensor
    keep_factors: bool = True
    longest: int = LONGEST_INTERVAL
    orthogonal: int = 0
    memory_limit: int = 2**30
    floor: float = 0.0
    reach: float = 0.45
    logs: list[Tensor] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    factors: list[Tensor] = field(default_factory=list)
    products: int = 0
    interval: int = 1

    def __post_init__(self) -> None:
        self.width = self.frame.shape[2]
        self.floor = self.floor or 16 * torch.finfo(self.frame.dtype).eps
        self.rate, self.memory, self.eliminations = 0.0, 0, 0
        self.eliminated, self.eliminated_steps = torch.zeros(()), 0
        self._go_on(self.frame)
        self.lost = torch.zeros(self.frame.shape[0], self.width, dtype=torch.bool, device=self.frame.device)

    @property
    def room(self) -> int:
        """Steps until the next factorisation."""
        return self.interval - self.pending_steps

    def push(self, operator: LinearOperator) -> None:
        """One more step, or a stretch of them; factorises where the interval ends."""
        steps = operator.steps if isinstance(operator, Stretch) else 1
        self.columns = operator.matmat(self.columns.to(operator.dtype)).to(self.frame.dtype)
        self.products += steps * self.columns.shape[2]
        self.pending.append(operator)
        self.pending_steps += steps
        if self.room > 0:
            return
        due = self.eliminated_steps + self.pending_steps >= (self.orthogonal or self.longest)
        if due or min(self.columns.shape[1:]) < max(_MANY, self.width) or bool(self.lost.any()):
            self.factorise()
        else:
            self._eliminate()

    def factorise(self) -> None:
        """Close the interval now, with orthonormal columns."""
        steps = self.eliminated_steps + self.pending_steps
        if not steps:
            return
        found = ranked_qr(self.columns, self.lost, self.floor)
        same = torch.equal(found.lost.sum(dim=1), self.lost.sum(dim=1))
        if (
            self.pending
            and steps > 1
            and not (same and self._independent(found.logs) and bool(found.r.isfinite().all()))
        ):
            self._walk_again()
            return
        if self.pending_steps:
            self._predict(found.logs)
        self._keep(found.r)
        missing = self.width - found.logs.shape[1]
        logs = torch.nn.functional.pad(found.logs, (0, missing), value=-torch.inf)
        self.logs.append(logs + self.eliminated if self.eliminated_steps else logs)
        self.lengths.append(steps)
        self.frame = found.q
        self.lost, self.eliminated_steps = found.lost, 0
        self._go_on(found.q)

    def _eliminate(self) -> None:
        """Make the columns independent again, at a third of the price."""
        columns, upper = eliminate(self.columns)
        diagonal = torch.diagonal(upper, dim1=1, dim2=2).abs()
        logs = diagonal.log()
        if not bool((diagonal > self.floor * upper.norm(dim=1)).all()):  # lost, or not finite
            self.factorise()
            return
        if self.pending_steps > 1 and not self._independent(logs):
            self._walk_again()
            return
        self._predict(logs)
        self._keep(upper)
        self.eliminated = self.eliminated + logs if self.eliminated_steps else logs
        self.eliminated_steps += self.pending_steps
        self.eliminations += 1
        self._go_on(columns)

    def _independent(self, logs: Tensor) -> bool:
        return _log_ratio(logs) <= (1 + self.reach) / 2 * -log(self.floor)

    def _predict(self, logs: Tensor) -> None:
        """The next interval: columns may grow or shrink by e^20 at most on its way, and keep their independence."""
        rate = max(_log_ratio(logs) / (self.reach * -log(self.floor)), _log_size(logs) / 20) / self.pending_steps
        self.rate = 0.7 * self.rate + 0.3 * rate if self.logs or self.eliminated_steps else rate
        self.interval = self.longest if self.rate * self.longest <= 1 else max(1, int(1 / self.rate))

    def _go_on(self, columns: Tensor) -> None:
        self.columns = self.origin = columns
        self.pending, self.pending_steps = [], 0

    def _walk_again(self) -> None:
        """The prediction failed, or a direction was lost: factorise after each step of the interval."""
        again, self.pending, self.pending_steps = self.pending, [], 0
        self.columns = self.origin
        self.factorise()
        for operator in again:
            for step in operator.parts() if isinstance(operator, Stretch) else [operator]:
                self.interval = 1
                self.push(step)

    def _keep(self, factor: Tensor) -> None:
        if self.keep_factors:
            self.factors.append(factor)
            self.memory += factor.nbytes
            if self.memory > self.memory_limit:
                self.keep_factors, self.factors = False, []

    def finish(self) -> QRExponents:
        """The exponents of all steps so far."""
        self.factorise()
        logs, lengths = torch.stack(self.logs, dim=1), torch.tensor(self.lengths, dtype=torch.float64)
        mean = logs.sum(dim=1) / lengths.sum()
        error = batch_means_error(logs, lengths.to(logs.device))
        order = mean.nan_to_num(nan=-torch.inf).argsort(dim=1, descending=True, stable=True)
        count = len(self.lengths) + self.eliminations
        how = f", {self.eliminations} of them by elimination" if self.eliminations else ""
        result = QRExponents(
            values=mean.gather(1, order),
            errors=error.gather(1, order),
            label=Label.ESTIMATE,
            method=f"QR, {count} factorisations over {int(lengths.sum())} steps{how}",
            products=self.products,
            logs=logs,
            lengths=tuple(self.lengths),
            factors=tuple(self.factors),
            frame=self.frame,
        )
        bad = mean.isnan().any(dim=1)
        return QRExponents(**{**vars(result), **vars(blank(result, bad))})


def batch_means_error(logs: Tensor, lengths: Tensor, *, batches: int = 20) -> Tensor:
    """Standard errors (samples, k) of sum(logs) / sum(lengths) from the means of consecutive batches.

    Args:
        logs: (samples, intervals, k). lengths: (intervals,). NaN for fewer than two intervals;
            0 where a value is -inf: no scatter can move it.

    References:
        Flegal & Jones (2010), Ann. Statist. 38 (batch means).
    """
    intervals = logs.shape[1]
    if intervals < 2:
        return torch.full_like(logs[:, 0], torch.nan)
    parts = torch.arange(intervals, device=logs.device).tensor_split(min(batches, intervals))
    weights = torch.stack([lengths[part].sum() for part in parts])
    means = torch.stack([logs[:, part].sum(dim=1) / lengths[part].sum() for part in parts], dim=1)
    share = (weights / weights.sum())[None, :, None]
    center = (means * share).sum(dim=1, keepdim=True)
    variance = (share * (means - center).square()).sum(dim=1) / (len(parts) - 1)
    return variance.sqrt().where(~center[:, 0].isneginf(), 0.0)


def _log_ratio(logs: Tensor) -> float:
    """ln of the largest over the smallest R_ii that is not lost, over all samples; 0 where there is none."""
    high, low = logs.amax(dim=1), logs.masked_fill(logs.isneginf(), torch.inf).amin(dim=1)
    ratio = (high - low)[high.isfinite() & low.isfinite()]
    return float(ratio.max()) if ratio.numel() else 0.0


def _log_size(logs: Tensor) -> float:
    """How far the largest R_ii of a sample has left 1, in e-folds; what the others do shows in the ratio."""
    size = float(logs.amax(dim=1).nan_to_num(neginf=0.0).abs().max())
    return size if isfinite(size) else 0.0
