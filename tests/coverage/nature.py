"""What a block is, found out without any trace: does it still pass its input on when its own matrices are zero?

A block with a skip does (a norm behind the skip keeps its scale); a plain block forgets its input.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from dynstab.capture.isolate import isolated
from dynstab.capture.leaves import tensor_leaves
from dynstab.loading import Inputs


@dataclass(frozen=True, kw_only=True)
class Nature:
    """How often forward runs a block, and whether the block has a skip (None: it could not be tried)."""

    calls: int
    skip: bool | None


def natures(module: nn.Module, inputs: Inputs, blocks: Mapping[str, nn.Module]) -> dict[str, Nature]:
    """The nature of each block; those with the same classes inside are alike."""
    calls: Counter[str] = Counter()
    with ExitStack() as stack:
        for path, block in blocks.items():

            def count(_module: nn.Module, _inputs: Any, path: str = path) -> None:
                calls[path] += 1

            stack.callback(block.register_forward_pre_hook(count).remove)
        _run(module, inputs)
    skips: dict[str, bool | None] = {}
    for path, block in blocks.items():
        if calls[path] and make(block) not in skips:
            skips[make(block)] = _skips(module, inputs, block)
    return {path: Nature(calls=calls[path], skip=skips.get(make(block))) for path, block in blocks.items()}


def make(block: nn.Module) -> str:
    """The module classes inside a block."""
    return " ".join(type(module).__name__ for module in block.modules())


def _run(module: nn.Module, inputs: Inputs) -> None:
    with isolated(module), torch.no_grad():
        module(*inputs.args, **inputs.kwargs)


def _skips(module: nn.Module, inputs: Inputs, block: nn.Module) -> bool | None:
    try:
        with _without_matrices(block):
            still, moved = _result(module, inputs, block, 0.0), _result(module, inputs, block, 1.0)
    except Exception:  # a router without scores, say: what zeros do to a forward is its own affair
        return None
    pairs = list(zip(still, moved, strict=True))
    return any(not torch.equal(a, b) for a, b in pairs) if pairs else None


def _result(module: nn.Module, inputs: Inputs, block: nn.Module, size: float) -> list[Tensor]:
    """The tensors that the block returns at its first call, its floating arguments moved by `size`."""
    found: list[list[Tensor]] = []

    def move(_module: nn.Module, args: Any, kwargs: Any) -> Any:
        if found:
            return None
        noise = torch.Generator().manual_seed(0)
        return pytree.tree_map(
            lambda leaf: leaf + size * torch.randn(leaf.shape, generator=noise) if _floating(leaf) else leaf,
            (args, kwargs),
        )

    def keep(_module: nn.Module, _args: Any, output: Any) -> None:
        found.append([tensor.clone() for _, tensor in tensor_leaves(output) if tensor.is_floating_point()])

    with ExitStack() as stack:
        stack.callback(block.register_forward_pre_hook(move, with_kwargs=True).remove)
        stack.callback(block.register_forward_hook(keep).remove)
        _run(module, inputs)
    return found[0]


def _floating(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()


@contextmanager
def _without_matrices(block: nn.Module) -> Iterator[None]:
    matrices = [parameter for parameter in block.parameters() if parameter.ndim > 1]
    before = [parameter.detach().clone() for parameter in matrices]
    try:
        for parameter in matrices:
            parameter.data.zero_()
        yield
    finally:
        for parameter, value in zip(matrices, before, strict=True):
            parameter.data.copy_(value)
