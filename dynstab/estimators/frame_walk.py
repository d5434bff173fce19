"""A frame of orthonormal tangents on its way along a chain, factorised as rarely as it may be.

A frame is pushed, J_l Q_l = Q_{l+1} R_l, and lambda_i = (1/L) sum_l ln |R_ii|. One factorisation may cover several
steps: the columns lose their independence at the rate at which exponents differ, so the next one is due when
the predicted ratio within R reaches eps^(-1/2) or so. Where that prediction fails the interval is walked again step
by step.

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
from dynstab.estimators.elimination import eliminate
from dynstab.estimators.qr_result import QRExponents, batch_means_error
from dynstab.estimators.ranked_qr import ranked_qr
from dynstab.estimators.result import blank, non_finite_samples
from dynstab.linear.operator import JacobianOperator, LinearOperator

LONGEST_INTERVAL = 100
_MANY = 32  # columns from which elimination is cheaper than QR


class Stretch(JacobianOperator):
    """One step of a chain, or several in one operator.

    Attributes:
        steps: how many. factors: (n, samples, k, k), upper triangles that were taken out of the columns on the
            way, after equally many steps each and after the last one; none for most.
    """

    steps: int
    factors: Tensor = torch.empty(0)

    @abstractmethod
    def parts(self) -> Sequence[LinearOperator]:
        """The single steps, once the stretch was pushed."""


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
        self.left_out: Tensor | None = None
        self._go_on(self.frame)
        self.lost = torch.zeros(self.frame.shape[0], self.width, dtype=torch.bool, device=self.frame.device)

    @property
    def room(self) -> int:
        """Steps until the next factorisation."""
        return self.interval - self.pending_steps

    @property
    def whole(self) -> int:
        """Steps until the next factorisation by QR."""
        return (self.orthogonal or self.longest) - self.eliminated_steps - self.pending_steps

    def push(self, operator: LinearOperator) -> None:
        """One more step, or a stretch of them; factorises where the interval ends."""
        self.carry(operator)
        self.settle()

    def carry(self, operator: LinearOperator) -> None:
        """`push` without `settle`."""
        steps = operator.steps if isinstance(operator, Stretch) else 1
        self.columns = operator.matmat(self.columns.to(operator.dtype)).to(self.frame.dtype)
        self.products += steps * self.columns.shape[2]
        self.pending.append(operator)
        self.pending_steps += steps

    def settle(self) -> None:
        """Factorise where the interval ends."""
        last = self.pending[-1] if self.pending else None
        if isinstance(last, Stretch) and len(last.factors):
            self._eliminated(last.factors.double(), self.columns)
            if self.whole > 0:
                return
        if self.room > 0:
            return
        if self.whole <= 0 or min(self.columns.shape[1:]) < max(_MANY, self.width) or bool(self.lost.any()):
            self.factorise()
        else:
            columns, upper = eliminate(self._others(self.columns))
            self._eliminated(upper[None], columns)

    def factorise(self) -> None:
        """Close the interval now, with orthonormal columns."""
        steps = self.eliminated_steps + self.pending_steps
        if not steps:
            return
        columns = self._others(self.columns)
        found, broken = ranked_qr(columns, self.lost, self.floor), non_finite_samples(columns)
        same = torch.equal(found.lost.sum(dim=1), self.lost.sum(dim=1))
        if self.pending and steps > 1 and not (same and self._independent(found.logs) and not bool(broken.any())):
            self._walk_again()
            return
        if self.pending_steps:
            self._predict(found.logs, self.pending_steps)
        self._keep(found.r)
        missing = self.width - found.logs.shape[1]
        logs = torch.nn.functional.pad(found.logs, (0, missing), value=-torch.inf)
        logs = logs.masked_fill(broken[:, None], torch.nan)
        self.logs.append(logs + self.eliminated if self.eliminated_steps else logs)
        self.lengths.append(steps)
        self.frame = found.q
        self.lost, self.eliminated_steps = found.lost, 0
        self._go_on(found.q)
        self.leave_out(broken)

    def leave_out(self, samples: Tensor) -> None:
        """Carry nothing for these samples, (samples,) bool, from now on: their values are NaN, the intervals are those
        that the others need."""
        if not bool(samples.any()):
            return
        self.left_out = samples if self.left_out is None else samples | self.left_out
        self.lost = self.lost & ~self.left_out[:, None]
        self.frame, self.origin, self.columns = map(self._others, (self.frame, self.origin, self.columns))

    def _others(self, columns: Tensor) -> Tensor:
        """The columns; those of the identity in place of a sample's that is left out."""
        if self.left_out is None:
            return columns
        still = torch.eye(*columns.shape[1:], dtype=columns.dtype, device=columns.device)
        return torch.where(self.left_out[:, None, None], still, columns)

    def _eliminated(self, uppers: Tensor, columns: Tensor) -> None:
        """The pending steps have left these columns, and these triangles (n, samples, k, k) in front of them."""
        uppers = uppers.transpose(0, 1)
        if self.left_out is not None:
            still = torch.eye(self.width, dtype=uppers.dtype, device=uppers.device)
            uppers = torch.where(self.left_out[:, None, None, None], still, uppers)
        diagonal = torch.diagonal(uppers, dim1=2, dim2=3).abs()
        logs = diagonal.log()
        # Nothing lost, all finite: of all columns at once, where that tells already.
        full = float(diagonal.amin()) > self.floor * self.width * float(uppers.abs().amax())
        full = full or bool((diagonal > self.floor * uppers.norm(dim=2)).all())
        if self.pending_steps > 1 and not (full and self._independent(logs.flatten(0, 1))):
            self._walk_again()
        elif not full:
            self.factorise()
        else:
            self._predict(logs.flatten(0, 1), self.pending_steps / uppers.shape[1])
            self.eliminated = logs.sum(dim=1) + (self.eliminated if self.eliminated_steps else 0.0)
            self.eliminated_steps += self.pending_steps
            self.eliminations += uppers.shape[1]
            for upper in uppers.unbind(1):
                self._keep(upper)
            self._go_on(self._others(columns))

    def _independent(self, logs: Tensor) -> bool:
        return _log_ratio(logs) <= (1 + self.reach) / 2 * -log(self.floor)

    def _predict(self, logs: Tensor, steps: float) -> None:
        """The next interval: columns may grow or shrink by e^20 at most on its way, and keep their independence."""
        rate = max(_log_ratio(logs) / (self.reach * -log(self.floor)), _log_size(logs) / 20) / steps
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
        if self.left_out is not None:
            mean = mean.masked_fill(self.left_out[:, None], torch.nan)
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


def _log_ratio(logs: Tensor) -> float:
    """ln of the largest over the smallest R_ii that is not lost, over all samples; 0 where there is none."""
    high, low = logs.amax(dim=1), logs.masked_fill(logs.isneginf(), torch.inf).amin(dim=1)
    ratio = (high - low)[high.isfinite() & low.isfinite()]
    return float(ratio.max()) if ratio.numel() else 0.0


def _log_size(logs: Tensor) -> float:
    """How far the largest R_ii of a sample has left 1, in e-folds; what the others do shows in the ratio."""
    size = float(logs.amax(dim=1).nan_to_num(neginf=0.0).abs().max())
    return size if isfinite(size) else 0.0
