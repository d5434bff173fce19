"""Whether a function of many states treats each row by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from dynstab.core.errors import InputError

_SHARE = 0.01  # of the states' size, by which rows are moved


@torch.no_grad()
def check_rows(function: Callable[[Tensor], Tensor], states: Tensor) -> None:
    """Move rows of (trajectories, *shape) and see that the others' values stay, 2 log2(trajectories) calls in all.

    Raises:
        InputError: one does not.
    """
    before = function(states).reshape(len(states), -1)
    eps = torch.finfo(states.dtype).eps
    slack = 4 * eps * before.abs().amax(dim=1, keepdim=True).nan_to_num(posinf=0.0)
    size = float(states.abs().float().mean()) or 1.0
    noise = torch.randn(states.shape, generator=torch.Generator().manual_seed(0)).to(states)
    near = states + max(_SHARE, 32 * eps) * size * noise
    for rows in _halves(len(states)):
        mask = rows.to(states.device).reshape(-1, *[1] * (states.ndim - 1))
        after = _value(function, torch.where(mask, near, states))
        if after is None:
            continue
        after = after.reshape(before.shape)
        stays = ((after - before).abs() <= slack) | (after == before) | (after.isnan() & before.isnan())
        moved = ~stays.all(dim=1) & ~mask.flatten()
        if bool(moved.any()):
            raise InputError(
                f"trajectory {int(moved.nonzero()[0])} moves where only others were changed",
                expected="a step that maps each row of (trajectories, *shape) by itself",
                remedy="torch.func.vmap of a step of one state, or .eval() where a BatchNorm is in train mode",
            )


def _halves(count: int) -> Iterator[Tensor]:
    """(count,) bool: masks of which one holds i and not j, for every pair i, j."""
    for bit in range((count - 1).bit_length()):
        ones = (torch.arange(count) >> bit & 1).bool()
        yield from (ones, ~ones)


def _value(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor | None:
    """None outside of the function's domain; what it raises there is its own affair."""
    try:
        return function(x)
    except Exception:
        return None
