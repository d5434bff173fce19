"""Which parts of a model run as compiled code, where Python hooks are not welcome."""

from __future__ import annotations

from torch import nn


def is_compiled(module: nn.Module) -> bool:
    """Whether `torch.compile(module)` made it, or `module.compile()` was called on it."""
    return hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
