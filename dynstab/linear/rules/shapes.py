"""Small helpers on tensors with a leading dimension k."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Size, Tensor


def align(tangent: Tensor, shape: Size) -> Tensor:
    """(k, *small) -> (k, 1, ..., 1, *small), so that it broadcasts against (k, *shape)."""
    missing = len(shape) + 1 - tangent.ndim
    return tangent.reshape(tangent.shape[0], *([1] * missing), *tangent.shape[1:]) if missing else tangent


def broadcast(tangent: Tensor, shape: Size) -> Tensor:
    """(k, *small) -> (k, *shape) by broadcasting."""
    return tangent if tangent.shape[1:] == shape else align(tangent, shape).expand(tangent.shape[0], *shape)


def sum_to(cotangent: Tensor, shape: Size) -> Tensor:
    """(k, *large) -> (k, *shape): the adjoint of `broadcast`."""
    if cotangent.shape[1:] == shape:
        return cotangent
    extra = cotangent.ndim - 1 - len(shape)
    wide = (1,) * extra + tuple(shape)
    dims = [d + 1 for d, size in enumerate(wide) if size == 1 and cotangent.shape[d + 1] != 1]
    summed = cotangent.sum(dims, keepdim=True) if dims else cotangent
    return summed.reshape(cotangent.shape[0], *shape)


def shifted(dims: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """Dimensions of a primal tensor as dimensions of its tangents; all of them for None or none given."""
    if dims is None:
        return tuple(range(1, ndim + 1))
    listed = (dims,) if isinstance(dims, int) else tuple(dims)
    return tuple(d % max(ndim, 1) + 1 for d in listed) or tuple(range(1, ndim + 1))


def fold(tangent: Tensor) -> Tensor:
    """(k, n, ...) -> (k * n, ...)."""
    return tangent.reshape(-1, *tangent.shape[2:])
