"""How far the weights move at a step, and how long the gradients are, for each group of parameters.

Gradients count whole. Of the weights a fixed sample is followed, about five hundred entries of each tensor:
their moves estimate ||update|| to a few percent a group, and a copy of all weights is never made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dynstab.capture.foreach import norms_of
from dynstab.monitor.distributed import local
from dynstab.monitor.places import Group

LINE, LINES = 16, 32
"""Neighbouring entries that a processor fetches together, and how many such lines of a tensor are followed."""


class GradientNorms:
    """Norms of the gradients as they are now, (groups,); 0 for a group without any, as under a detach().

    Args:
        total: norms of this process's parts -> norms of the whole.
    """

    def __init__(self, groups: Sequence[Group], total: Callable[[Tensor], Tensor]) -> None:
        self._parameters = [(i, p) for i, group in enumerate(groups) for p in group.parameters]
        self._count, self._total = len(groups), total
        self._known: tuple[list[int], Tensor] | None = None

    @torch.no_grad()
    def __call__(self) -> Tensor | None:
        """None where there is no gradient at all."""
        held = [(i, _values(p.grad)) for i, p in self._parameters if p.grad is not None]
        if not held:
            return None
        # In float64, where squares of vanishing gradients do not vanish.
        squares = norms_of([gradient for _, gradient in held]).square()
        owners = self._owners([i for i, _ in held], squares.device)
        return self._total(squares.new_zeros(self._count).index_add_(0, owners, squares).sqrt())

    def _owners(self, groups: list[int], device: torch.device) -> Tensor:
        """On the device, where it goes only when another parameter has a gradient than before."""
        if self._known is None or self._known[0] != groups:
            self._known = groups, torch.tensor(groups).to(device)
        return self._known[1]


class WeightSample:
    """The followed entries of all groups, as they were at the last call.

    Args:
        total: norms of this process's parts -> norms of the whole.
    """

    def __init__(self, groups: Sequence[Group], total: Callable[[Tensor], Tensor]) -> None:
        self._parameters = [(i, local(p)) for i, group in enumerate(groups) for p in group.parameters]
        self._groups, self._total = len(groups), total
        self._find()

    def _find(self) -> None:
        self._addresses = [tensor.data_ptr() for _, tensor in self._parameters]
        # One flat sample for each device and dtype: a step then costs a handful of kernels.
        kinds = dict.fromkeys((tensor.device, tensor.dtype) for _, tensor in self._parameters)
        self._flats = [
            _Flat([(i, t) for i, t in self._parameters if (t.device, t.dtype) == kind], self._groups) for kind in kinds
        ]

    @torch.no_grad()
    def norms(self) -> tuple[Tensor, Tensor] | None:
        """||theta_now - theta_before|| and ||theta_now||, (groups,) each; None where they lie elsewhere by now."""
        if [tensor.data_ptr() for _, tensor in self._parameters] != self._addresses:
            self._find()
            return None
        if not self._flats:
            return None
        squares = [flat.squares() for flat in self._flats]
        both = torch.stack([part.to(squares[0], non_blocking=True) for part in squares]).sum(dim=0)
        update, weight = self._total(both.sqrt()).unbind()
        return update, weight


class _Flat:
    """Sampled entries of tensors of one device and dtype, as one vector."""

    def __init__(self, tensors: Sequence[tuple[int, Tensor]], groups: int) -> None:
        self.groups = groups
        sampled = [(owner, tensor.numel(), _sample(tensor.detach())) for owner, tensor in tensors]
        self.lines = [view for _, _, view in sampled if view.ndim == 2]
        self.short = [view for _, _, view in sampled if view.ndim == 1]
        # In the order in which `_now` puts them together.
        sampled.sort(key=lambda each: -each[2].ndim)
        counts = torch.tensor([view.numel() for _, _, view in sampled])
        shares = torch.tensor([whole / max(1, view.numel()) for _, whole, view in sampled])
        device = sampled[0][2].device
        self.shares = shares.repeat_interleave(counts).to(device)
        owners, lengths = (
            torch.tensor([owner for owner, _, _ in sampled])
            .repeat_interleave(counts)
            .unique_consecutive(return_counts=True)
        )
        self.owners, self.lengths = owners.to(device), lengths.expand(2, -1).contiguous().to(device)
        self.before = self._now()

    def _now(self) -> Tensor:
        parts = [torch.cat(self.lines).view(-1)] if self.lines else []
        held = torch.cat([*parts, *self.short])
        return held if held.dtype == torch.float64 else held.float()

    def squares(self) -> Tensor:
        """(2, groups): of the moves since the last call and of the entries, scaled up to whole tensors."""
        now = self._now()
        rows = torch.stack([now - self.before, now]).square_().mul_(self.shares)
        self.before = now
        sums = torch.segment_reduce(rows, "sum", lengths=self.lengths, axis=1, unsafe=True)
        return sums.new_zeros((2, self.groups)).index_add_(1, self.owners, sums)


def _sample(tensor: Tensor) -> Tensor:
    """A view of a few lines of memory at even distances, (lines, LINE); all of a small tensor, (entries,).

    The distance is odd, so that it walks through all columns of a matrix.
    """
    order = sorted(range(tensor.ndim), key=lambda dim: -tensor.stride(dim))
    dense = tensor.permute(order)
    # Memory with gaps has no flat view: its first row serves.
    flat = dense.view(-1) if dense.is_contiguous() else dense[(0,) * (tensor.ndim - 1)]
    if flat.numel() <= LINES * LINE or flat.stride(0) != 1:
        return flat[: LINES * LINE]
    lines = flat[: flat.numel() // LINE * LINE].view(-1, LINE)
    return lines[:: (len(lines) // LINES) | 1]


def _values(gradient: Tensor) -> Tensor:
    here = local(gradient)
    return here.coalesce().values() if here.is_sparse else here
