"""What a configuration declares about depth, held against the residual steps that were found.

The rule: every list of modules whose length is a layer count of the configuration (or of a nested
one) is a declared stack of blocks. A stack counts where at least one step of the trajectory lies in
one of its blocks; a stack that only feeds the chain as context does not. A block's updates are the
residual steps in it, and the transitions (the step at which another stream joins or leaves, or at
which the width changes, is the update of that place); where forward runs a block several times, those
of one run. A stack matches where every block with a skip holds one to four updates, and blocks of the
same make (the same module classes inside) hold the same number; only the block at which the chain
enters a stack from another stream may hold fewer. A block without a skip (see `nature`) must hold no
residual step, and does not count.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nature import Nature, make, natures
from shrink import is_layer_count
from torch import nn
from transformers import PretrainedConfig

from dynstab.core.report import StepInfo
from dynstab.loading import Inputs

_MOST = 4  # half an MLP, attention, convolution, half an MLP: a conformer


@dataclass(frozen=True, kw_only=True)
class Declared:
    """`blocks` with a skip in the stacks on the chain, their `updates`, `plain` blocks, and what breaks the rule."""

    blocks: int = 0
    updates: int = 0
    plain: int = 0
    broken: tuple[str, ...] = ()


def declared(module: nn.Module, config: PretrainedConfig | None, steps: Sequence[StepInfo], inputs: Inputs) -> Declared:
    """Compare the declared stacks with the steps found."""
    total = Declared()
    for stack in _stacks(module, _counts(config)) if config else ():
        found = {path: _within(steps, path) for path in stack}
        if any(found.values()):
            one = _compared(stack, found, steps, natures(module, inputs, stack))
            total = Declared(
                blocks=total.blocks + one.blocks,
                updates=total.updates + one.updates,
                plain=total.plain + one.plain,
                broken=total.broken + one.broken,
            )
    return total


def _compared(
    stack: Mapping[str, nn.Module],
    found: Mapping[str, Sequence[StepInfo]],
    steps: Sequence[StepInfo],
    nature: Mapping[str, Nature],
) -> Declared:
    plain = [path for path in stack if nature[path].skip is False]
    wrong = [path for path in plain if any(step.kind == "residual" for step in found[path])]
    broken = [f"{path}: plain, but residual steps in it" for path in wrong]
    counts = {path: _one_run(found[path], nature[path].calls) for path in stack if path not in plain}
    entry = next(path for path, inside in found.items() if inside)
    first = found[entry][0].index
    joins = any(step.kind == "transition" for step in steps[max(0, first - 1) : first + 1])
    alike: dict[str, set[int]] = defaultdict(set)
    for path, count in counts.items():
        if not (joins and path == entry):
            alike[make(stack[path])].add(count)
    for path, count in counts.items():
        if not 1 <= count <= _MOST or len(alike[make(stack[path])]) > 1:
            broken.append(f"{path}: {count}")
    return Declared(blocks=len(counts), updates=sum(counts.values()), plain=len(plain), broken=tuple(broken))


def _one_run(inside: Sequence[StepInfo], calls: int) -> int:
    updates = sum(step.kind != "plain" for step in inside)
    return updates // calls if calls and updates % calls == 0 else updates


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


def _within(steps: Sequence[StepInfo], path: str) -> list[StepInfo]:
    return [step for step in steps if _in(step.block, path) or _in(re.split(r"[ \[]", step.name)[0], path)]


def _in(inner: str, outer: str) -> bool:
    return inner == outer or inner.startswith(outer + ".")
