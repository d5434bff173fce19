"""Whether a captured graph and the function that it was made from agree: points to look at, and how closely."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from dynstab.core.errors import InputError

Tensors = tuple[Tensor, ...]


def nearby(tensors: Tensors, sizes: tuple[float, ...] = (0.01, 1.0, -2.0)) -> Iterator[Tensors]:
    """Points around those tensors, on both of their sides, at which a branch on values would show.

    Args:
        sizes: how far away, in units of each tensor's mean size, or of 1 where that is zero.
    """
    generator = torch.Generator().manual_seed(0)
    for size in sizes:
        scales = [float(tensor.abs().mean()) or 1.0 for tensor in tensors]
        yield tuple(
            tensor + size * scale * torch.randn(tensor.shape, generator=generator).to(tensor)
            for tensor, scale in zip(tensors, scales, strict=True)
        )


def close(found: Tensor, expected: Tensor) -> bool:
    """Equal but for rounding, of the largest entry where others are small beside it."""
    if found.shape != expected.shape:
        return False
    scale = float(expected.abs().nan_to_num(posinf=0.0).max()) if expected.numel() else 0.0
    tolerance = 100 * torch.finfo(expected.dtype).eps
    return torch.allclose(found, expected, rtol=tolerance, atol=tolerance * scale, equal_nan=True)


@torch.no_grad()
def check_derivative(
    f: Callable[[Tensor], Tensor], push: Callable[[Tensor, Tensor], Tensor], x: Tensor, tangents: Tensor
) -> None:
    """Compare J v with (f(x + h v) - f(x - h v)) / 2h for two h, where these agree with each other.

    A little off x, since a first state often lies where all units have their kinks.

    Args:
        push: of x and (k, *x.shape) tangents, J v for each.

    Raises:
        InputError: they agree, and J v is another: a part of the derivative is cut off.
    """
    eps, tangent = torch.finfo(x.dtype).eps, tangents[0]
    step = eps ** (1 / 3) * (float(x.abs().mean()) or 1.0) / float(tangent.square().mean().sqrt())
    ((x,),) = nearby((x,), (0.1,))
    try:
        near, far = ((f(x + h * tangent) - f(x - h * tangent)) / (2 * h) for h in (step, 2 * step))
    except Exception:  # what f raises outside of its domain is its own affair
        return
    pushed = push(x, tangents)[0]
    size, doubt, gap = float(near.norm()), float((near - far).norm()), float((pushed - near).norm())
    if doubt < 1e-2 * size and gap > 10 * doubt + 100 * eps ** (2 / 3) * size:
        raise InputError(
            f"the derivative of the step misses a part: along a tangent it has length {float(pushed.norm()):.6g}, and "
            f"differences of the step {size:.6g}, {gap:.2g} away from it",
            expected="a step that computes with tensors",
            remedy="look for .item(), float(), .detach() and torch.no_grad() in it",
        )
