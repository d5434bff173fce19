"""The operations of TorchScript that are not tensor operators: its scalars, strings and lists.

Tensor operators go to torch.ops; those of the language itself have no Python binding and
are few enough to be written down.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

UNSAFE = frozenset({"save", "from_file", "load_library", "_print", "breakpoint"})


def _set_item(container: Any, key: Any, value: Any) -> Any:
    container[key] = value
    return container


def _append(items: list[Any], value: Any) -> list[Any]:
    items.append(value)
    return items


def _extend(items: list[Any], more: list[Any]) -> list[Any]:
    items.extend(more)
    return items


def _size(tensor: Tensor, dim: int | None = None) -> Any:
    return list(tensor.shape) if dim is None else tensor.shape[dim]


def _tensor(value: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    if isinstance(dtype, int):  # a constant data type is its number in TorchScript
        dtype = torch.ops.aten.empty.memory_format([0], dtype=dtype).dtype
    return torch.tensor(value, dtype=dtype, device=device, requires_grad=requires_grad)


def _format(template: str, *values: Any) -> str:
    return template.format(*values)


LANGUAGE: dict[str, Callable[..., Any]] = {
    "aten::__contains__": operator.contains,
    "aten::__getitem__": operator.getitem,
    "aten::__is__": operator.is_,
    "aten::__isnot__": operator.is_not,
    "aten::__not__": operator.not_,
    "aten::_set_item": _set_item,
    "aten::Bool": bool,
    "aten::Float": float,
    "aten::FloatImplicit": float,
    "aten::Int": int,
    "aten::IntImplicit": int,
    "aten::ScalarImplicit": lambda tensor: tensor.item(),
    "aten::append": _append,
    "aten::extend": _extend,
    "aten::as_tensor": _tensor,
    "aten::tensor": _tensor,
    "aten::dim": lambda tensor: tensor.dim(),
    "aten::format": _format,
    "aten::is_floating_point": lambda tensor: tensor.is_floating_point(),
    "aten::items": lambda mapping: list(mapping.items()),
    "aten::keys": lambda mapping: list(mapping),
    "aten::values": lambda mapping: list(mapping.values()),
    "aten::len": len,
    "aten::list": list,
    "aten::size": _size,
    "aten::str": str,
    "aten::warn": lambda *_: None,
    "prim::NumToTensor": lambda number: torch.tensor(number),
    "prim::Print": lambda *_: None,
    "prim::Uninitialized": lambda: None,
    "prim::data": lambda tensor: tensor.detach(),
    "prim::device": lambda tensor: tensor.device,
    "prim::dtype": lambda tensor: tensor.dtype,
    "prim::is_cuda": lambda tensor: tensor.is_cuda,
    "prim::is_nested": lambda tensor: tensor.is_nested,
    "prim::requires_grad": lambda tensor: tensor.requires_grad,
    "prim::layout": lambda tensor: tensor.layout,
    "prim::max": lambda first, *rest: max(first, *rest) if rest else max(first),
    "prim::min": lambda first, *rest: min(first, *rest) if rest else min(first),
    "prim::unchecked_cast": lambda value: value,
    "prim::unchecked_unwrap_optional": lambda value: value,
    "aten::_unwrap_optional": lambda value: value,
}

# The same names serve tensors, so these act only where no argument is one.
SCALAR: dict[str, Callable[..., Any]] = {
    "aten::__and__": operator.and_,
    "aten::__or__": operator.or_,
    "aten::abs": abs,
    "aten::add": operator.add,
    "aten::ceil": math.ceil,
    "aten::div": operator.truediv,
    "aten::eq": operator.eq,
    "aten::floor": math.floor,
    "aten::floordiv": operator.floordiv,
    "aten::ge": operator.ge,
    "aten::gt": operator.gt,
    "aten::le": operator.le,
    "aten::lt": operator.lt,
    "aten::mul": operator.mul,
    "aten::ne": operator.ne,
    "aten::neg": operator.neg,
    "aten::pow": operator.pow,
    "aten::remainder": operator.mod,
    "aten::slice": lambda items, start, stop, step=1: items[slice(start, stop, step)],
    "aten::sqrt": math.sqrt,
    "aten::sub": operator.sub,
}
