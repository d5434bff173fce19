"""How far the weights move at a step, and how long the gradients are, for each group of parameters.

Gradients count whole, those of a quarter of the groups at each step: reading them all costs a pass through memory
as large as the model. Of the weights a fixed sample is followed, about five hundred entries of each tensor in 32
short lines, and a copy of all weights is never made. Where all of a tensor moves, their moves estimate ||update||
to a few percent a group. Of a table of which a step moves few rows, an embedding or the head of a large vocabulary,
those rows mostly miss the sample: its ||update|| is often 0 or a third of the true one, and now and then twice it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dynstab.capture.foreach import norms_of
from dynstab.monitor.distributed import local
from dynstab.monitor.lines import lines_of
from dynstab.monitor.places import Group

LINE, LINES = 16, 32
"""Neighbouring entries that a processor fetches together, and how many such lines of a tensor are followed."""

TURNS = 4
"""Steps within which the gradients of all groups are read once."""

_ADDRESSES_EVERY = 4
"""Steps of which one looks whether the parameters still lie where they lay, and the same ones are trained."""


@dataclass(frozen=True)
class Parts:
    """Norms of parts of groups, (parts,), on whatever device, and the group that each belongs to."""

    norms: Tensor
    owners: Sequence[int]

    def joined(self, read: Sequence[float], before: Sequence[float]) -> tuple[float, ...]:
        """The norms of the groups from those of the parts; groups without a part keep what they had before."""
        found: dict[int, list[float]] = {}
        for owner, norm in zip(self.owners, read, strict=True):
            found.setdefault(owner, []).append(norm)
        return tuple(math.hypot(*found[i]) if i in found else old for i, old in enumerate(before))


class GradientNorms:
    """Norms of the gradients as they are now, a quarter of the groups in turn; at first all of them.

    Args:
        total: norms of this process's parts -> norms of the whole.
    """

    def __init__(self, groups: Sequence[Group], total: Callable[[Tensor], Tensor]) -> None:
        self._all = [(i, p) for i, group in enumerate(groups) for p in group.parameters]
        turns = min(TURNS, len(groups))
        self._turns = [[(i, p) for i, p in self._all if i % turns == turn] for turn in range(turns)]
        self._total, self._begun = total, False

    def __call__(self, step: int) -> Parts | None:
        """None where there is no gradient at all; a norm of 0 for a parameter without any, as under a detach()."""
        due = self._turns[step % len(self._turns)] if self._begun else self._all
        held = [(i, _values(p.grad)) for i, (_, p) in enumerate(due) if p.grad is not None]
        if not held and all(p.grad is None for _, p in self._all):
            return None
        self._begun = True
        # In float64, where squares of vanishing gradients do not vanish.
        if held:
            norms = norms_of([gradient for _, gradient in held])
        else:
            norms = torch.empty(0, dtype=torch.float64, device=due[0][1].device)
        if len(held) < len(due):
            there = torch.tensor([i for i, _ in held], dtype=torch.int64).to(norms.device)
            norms = norms.new_zeros(len(due)).index_copy_(0, there, norms)
        return Parts(self._total(norms), [owner for owner, _ in due])


class WeightSample:
    """The followed entries of all groups, as they were at the last call. Of a frozen group none are: its norms are 0.

    Args:
        total: norms of this process's parts -> norms of the whole.
    """

    def __init__(self, groups: Sequence[Group], total: Callable[[Tensor], Tensor]) -> None:
        self._parameters = [(i, p, local(p)) for i, group in enumerate(groups) for p in group.parameters]
        self._groups, self._total = len(groups), total
        self._find()

    def _find(self) -> None:
        self._addresses = self._present()
        trained = [(i, here) for i, p, here in self._parameters if p.requires_grad]
        # One flat sample for each device and dtype: a step then costs a handful of kernels.
        kinds = dict.fromkeys((tensor.device, tensor.dtype) for _, tensor in trained)
        self._flats = [
            _Flat([(i, t) for i, t in trained if (t.device, t.dtype) == kind], self._groups) for kind in kinds
        ]
        self._owners = [owner for flat in self._flats for owner in flat.owners]

    def _present(self) -> list[int | None]:
        """Where the parameters lie that are trained."""
        return [here.data_ptr() if p.requires_grad else None for _, p, here in self._parameters]

    def norms(self, step: int) -> tuple[Parts, Parts] | None:
        """||theta_now - theta_before|| and ||theta_now||; None where they lie elsewhere by now, or others train."""
        if step % _ADDRESSES_EVERY == 0 and self._present() != self._addresses:
            self._find()
            return None
        if not self._flats:
            return None
        squares = [flat.squares() for flat in self._flats]
        both = squares[0]
        if len(squares) > 1:
            both = torch.cat([part.to(both, non_blocking=True) for part in squares], dim=1)
        update, weight = self._total(both.sqrt_()).unbind()
        return Parts(update, self._owners), Parts(weight, self._owners)


class _Flat:
    """Sampled entries of tensors of one device and dtype, as one vector: those of large tensors, then the others.

    Attributes:
        owners: the groups of the sums, first of large tensors and then of the others; the same on every process.
    """

    def __init__(self, tensors: Sequence[tuple[int, Tensor]], groups: int) -> None:
        sampled = [(owner, tensor.numel(), _sample(tensor.detach())) for owner, tensor in tensors]
        sampled.sort(key=lambda each: -each[2].ndim)
        self._lines = [view for _, _, view in sampled if view.ndim == 2]
        self._short = [view for _, _, view in sampled if view.ndim == 1]
        self.owners = [*range(groups), *range(groups)]
        lengths = [0] * (2 * groups)
        for owner, _, view in sampled:
            lengths[owner + groups * (view.ndim == 1)] += view.numel()
        device, dtype = sampled[0][2].device, sampled[0][2].dtype
        counts = torch.tensor([view.numel() for _, _, view in sampled])
        shares = torch.tensor([whole / max(1, view.numel()) for _, whole, view in sampled])
        wide = dtype if dtype == torch.float64 else torch.float32
        self._shares = shares.repeat_interleave(counts).to(device, wide)
        self._lengths = torch.tensor([lengths, lengths]).to(device)
        # Memory and views that serve again and again: made anew, they would cost more than the numbers.
        self._now, self._before = (self._buffer() for _ in range(2))
        self._rows = self._shares.new_empty(2, len(self._shares))
        self._moves, self._entries = self._rows.unbind()
        self._read(self._before)

    def _buffer(self) -> _Buffer:
        whole = torch.empty_like(self._shares)
        long = sum(view.numel() for view in self._lines)
        return _Buffer(whole, whole[:long].view(-1, LINE), whole[long:])

    def _read(self, into: _Buffer) -> None:
        if self._lines:
            torch.cat(self._lines, out=into.lines)
        if self._short:
            torch.cat(self._short, out=into.short)

    def squares(self) -> Tensor:
        """(2, parts): of the moves since the last call and of the entries, scaled up to whole tensors."""
        self._read(self._now)
        torch.sub(self._now.whole, self._before.whole, out=self._moves)
        self._entries.copy_(self._now.whole)
        self._now, self._before = self._before, self._now
        self._rows.square_().mul_(self._shares)
        return torch.segment_reduce(self._rows, "sum", lengths=self._lengths, axis=1, unsafe=True)


class _Buffer(NamedTuple):
    """One reading, and the views of it that hold the lines of large tensors and the entries of small ones."""

    whole: Tensor
    lines: Tensor
    short: Tensor


def _sample(tensor: Tensor) -> Tensor:
    """A view of lines of memory, (lines, LINE); all of a small tensor, (entries,)."""
    dense = tensor.permute(sorted(range(tensor.ndim), key=lambda dim: -tensor.stride(dim)))
    # Memory with gaps has no flat view: its first row serves.
    flat = dense.view(-1) if dense.is_contiguous() else dense[(0,) * (tensor.ndim - 1)]
    return lines_of(flat, length=LINE, most=LINE * LINES) if flat.stride(0) == 1 else flat[: LINE * LINES]


def _values(gradient: Tensor) -> Tensor:
    # A plain one is the rule, and asking whether it is another is half the price of reading it.
    here = gradient if type(gradient) is Tensor else local(gradient)
    here = here.detach() if here.requires_grad else here
    return here.coalesce().values() if here.is_sparse else here
