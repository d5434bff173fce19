"""A sharded model as a single process would have it, without touching the sharded one."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_hooks", "_backward_pre_hooks")
_TABLES = (dict, OrderedDict, list, set)


def plain_copy(model: nn.Module, whole: Callable[[Tensor], Tensor]) -> nn.Module:
    """The same modules with whole parameters and buffers, and without `fully_shard` and its hooks.

    Args:
        whole: a shard -> the tensor; called once for each, in the order of the modules, since it is a collective.
    """
    return _Copier(whole).module(model)


class _Copier:
    def __init__(self, whole: Callable[[Tensor], Tensor]) -> None:
        self.whole = whole
        # What is shared in the model is shared in its copy.
        self.modules: dict[int, nn.Module] = {}
        self.tensors: dict[int, Tensor] = {}

    def module(self, module: nn.Module) -> nn.Module:
        if id(module) in self.modules:
            return self.modules[id(module)]
        kind = type(module)
        # `fully_shard` derives a class from (FSDPModule, the module's own class).
        own = kind.__mro__[2] if isinstance(module, FSDPModule) else kind
        twin = self.modules[id(module)] = object.__new__(own)
        held = {name: copy.copy(value) if type(value) in _TABLES else value for name, value in vars(module).items()}
        for name in _HOOKS:
            held[name] = OrderedDict((key, hook) for key, hook in held[name].items() if not _belongs_to_torch(hook))
        held["_parameters"] = {name: self.parameter(value) for name, value in held["_parameters"].items()}
        held["_buffers"] = {name: self.buffer(value) for name, value in held["_buffers"].items()}
        held["_modules"] = {
            name: None if child is None else self.module(child) for name, child in held["_modules"].items()
        }
        vars(twin).update(held)
        return twin

    def parameter(self, value: Tensor | None) -> Tensor | None:
        if value is not None and id(value) not in self.tensors:
            self.tensors[id(value)] = nn.Parameter(self.whole(value), requires_grad=value.requires_grad)
        return None if value is None else self.tensors[id(value)]

    def buffer(self, value: Tensor | None) -> Tensor | None:
        return None if value is None else self.whole(value)


def _belongs_to_torch(hook: object) -> bool:
    """Whether a hook is a method of the state that `fully_shard` keeps."""
    owner = getattr(hook, "__self__", hook)
    return type(owner).__module__.startswith("torch.distributed") or _module_of(hook).startswith("torch.distributed")


def _module_of(function: object) -> str:
    return getattr(function, "__module__", None) or ""
