"""What a configuration declares about depth, held against the residual steps that were found.

The rule: every list of modules whose length is a layer count of the configuration (or of a nested
one) is a declared stack of blocks. A stack counts where at least one step of the trajectory lies in
one of its blocks; a stack that only feeds the chain as context does not. A block's updates are the
residual steps in it, and the transitions (the step at which another stream joins or leaves, or at
which the width changes, is the update of that place). A stack matches where every block holds one to
four updates, and blocks of the same make (the same module classes inside) hold the same number; only
the block at which the chain enters a stack from another stream may hold fewer.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from shrink import is_layer_count
from torch import nn
from transformers import PretrainedConfig

from dynstab.core.report import StepInfo

_MOST = 4  # half an MLP, attention, convolution, half an MLP: a conformer


@dataclass(frozen=True, kw_only=True)
class Declared:
    """`blocks` of the stacks on the chain, the `updates` in them, and the blocks that break the rule."""

    blocks: int
    updates: int
    broken: tuple[str, ...]


def declared(module: nn.Module, config: PretrainedConfig, steps: Sequence[StepInfo]) -> Declared:
    """Compare the declared stacks with the steps found."""
    blocks = updates = 0
    broken: list[str] = []
    for stack in _stacks(module, _counts(config)):
        found = {path: _within(steps, path) for path in stack}
        if not any(found.values()):
            continue
        counts = {path: sum(step.kind != "plain" for step in inside) for path, inside in found.items()}
        blocks, updates = blocks + len(stack), updates + sum(counts.values())
        entry = next(path for path, inside in found.items() if inside)
        first = found[entry][0].index
        joins = any(step.kind == "transition" for step in steps[max(0, first - 1) : first + 1])
        alike: dict[str, set[int]] = defaultdict(set)
        for path, count in counts.items():
            if not (joins and path == entry):
                alike[_make(stack[path])].add(count)
        for path, count in counts.items():
            if not 1 <= count <= _MOST or len(alike[_make(stack[path])]) > 1:
                broken.append(f"{path}: {count}")
    return Declared(blocks=blocks, updates=updates, broken=tuple(broken))


def _counts(config: PretrainedConfig) -> set[int]:
    """Layer counts; where there are `depths`, the other counts are of stages."""
    nested = [value for value in vars(config).values() if isinstance(value, PretrainedConfig)]
    depths = getattr(config, "depths", None)
    counts = {value for name, value in vars(config).items() if is_layer_count(name) and isinstance(value, int)}
    own = set(depths) if isinstance(depths, list | tuple) else counts
    return own.union(*map(_counts, nested))


def _stacks(module: nn.Module, counts: set[int]) -> list[dict[str, nn.Module]]:
    """Outermost lists of blocks with their paths."""
    stacks: list[dict[str, nn.Module]] = []
    for path, container in module.named_modules():
        inside = any(_in(path, block) for stack in stacks for block in stack)
        alike = isinstance(container, nn.ModuleList | nn.Sequential) and len(container) in counts - {1}
        if alike and not inside and _blocks(container):
            stacks.append({f"{path}.{name}" if path else name: child for name, child in container.named_children()})
    return stacks


def _blocks(container: nn.Module) -> bool:
    """Whether the members are blocks: of one class, each with at least two modules with weights of their own."""
    members = list(container.children())
    weighted = [sum(bool(list(m.parameters(recurse=False))) for m in member.modules()) for member in members]
    return len({type(member) for member in members}) == 1 and min(weighted, default=0) > 2


def _make(block: nn.Module) -> str:
    return " ".join(type(module).__name__ for module in block.modules())


def _within(steps: Sequence[StepInfo], path: str) -> list[StepInfo]:
    return [step for step in steps if _in(step.block, path) or _in(re.split(r"[ \[]", step.name)[0], path)]


def _in(inner: str, outer: str) -> bool:
    return inner == outer or inner.startswith(outer + ".")
