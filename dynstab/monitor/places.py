"""Where to listen: the blocks of a model, and the parameters that belong to each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from dynstab.capture.capture import unwrap
from dynstab.capture.compiled import is_compiled

MOST_PLACES = 64
"""Deeper models are listened to at evenly spaced blocks."""

_LISTS = (nn.ModuleList, nn.Sequential, nn.ModuleDict)


@dataclass(frozen=True, kw_only=True)
class Place:
    """A block. `compiled`: it runs inside compiled code, where hooks would break the graph apart."""

    name: str
    module: nn.Module
    compiled: bool = False


@dataclass(frozen=True, kw_only=True)
class Group:
    """Parameters that are summed up in one number, frozen ones too: they may be trained later."""

    name: str
    parameters: tuple[Tensor, ...]


def find_blocks(model: nn.Module) -> tuple[Place, ...]:
    """The members of the outermost lists of modules, in order, stages opened; the children where there are no lists."""
    root, compiled = unwrap(model), _compiled_outside(model)
    members = list(_members(root, "", compiled)) if isinstance(root, _LISTS) else list(_in_lists(root, "", compiled))
    if len(members) < 2:
        members = [place for name, child in root.named_children() for place in _called(child, name, compiled)]
    seen: dict[int, Place] = {}
    for place in members:
        if any(True for _ in place.module.parameters()):
            seen.setdefault(id(place.module), place)
    return tuple(seen.values())


def audible(blocks: tuple[Place, ...]) -> tuple[Place, ...]:
    """Those that hooks can reach, thinned to at most `MOST_PLACES`."""
    open_ones = [place for place in blocks if not place.compiled]
    return tuple(open_ones[:: -(-len(open_ones) // MOST_PLACES) or 1])


def find_groups(model: nn.Module, blocks: tuple[Place, ...]) -> tuple[Group, ...]:
    """One group a block, and one for every other module with parameters of its own, in the order of the model."""
    names = {place.name for place in blocks}
    groups: dict[str, list[Tensor]] = {}
    for path, parameter in unwrap(model).named_parameters():
        if parameter.is_floating_point():
            groups.setdefault(_owner(_readable(path), names), []).append(parameter)
    return tuple(Group(name=name, parameters=tuple(held)) for name, held in groups.items())


def _owner(path: str, blocks: set[str]) -> str:
    parts = path.split(".")
    prefixes = (".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1))
    return next((prefix for prefix in prefixes if prefix in blocks), ".".join(parts[:-1]) or path)


def _readable(path: str) -> str:
    return ".".join(part for part in path.split(".") if part != "_orig_mod")


def _compiled_outside(model: nn.Module) -> bool:
    """Whether the model, or one of its wrappers, is compiled as a whole."""
    while not is_compiled(model):
        if not isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            return False
        model = model.module
    return True


def _in_lists(module: nn.Module, prefix: str, compiled: bool) -> Iterator[Place]:
    """The members of lists below a module that is no list."""
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        inside = compiled or is_compiled(child)
        if isinstance(child, _LISTS):
            yield from _members(child, f"{path}.", inside)
        else:
            # A wrapper of compiled code has no name of its own.
            yield from _in_lists(child, prefix if name == "_orig_mod" else f"{path}.", inside)


def _called(module: nn.Module, name: str, compiled: bool) -> Iterator[Place]:
    """The module itself, or the members of one that is only a list and has no forward."""
    if isinstance(module, (nn.ModuleList, nn.ModuleDict)):
        yield from _members(module, f"{name}.", compiled or is_compiled(module))
    else:
        yield Place(name=name, module=module, compiled=compiled)


def _members(container: nn.Module, prefix: str, compiled: bool) -> Iterator[Place]:
    for name, member in container.named_children():
        if _is_stage(member):
            yield from _members(member, f"{prefix}{name}.", compiled or is_compiled(member))
        else:
            # A hook fits around a block that torch.compile wrapped, not around one that was compiled in place.
            within = compiled or (is_compiled(member) and not hasattr(member, "_orig_mod"))
            yield Place(name=f"{prefix}{name}", module=member, compiled=within)


def _is_stage(module: nn.Module) -> bool:
    """A list of blocks within a list; one of single layers is a block itself."""
    return isinstance(module, _LISTS) and any(any(True for _ in child.children()) for child in module.children())
