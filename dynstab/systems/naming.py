"""Names of steps, in the terms of the user's modules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import fx

from dynstab.systems.dependence import op_name
from dynstab.systems.residual import SAME_ORDER

_SHOWN = 4


def block_of(path: str) -> str:
    """The deepest numbered module on a path: "transformer.h.3" for "transformer.h.3.attn"."""
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        if parts[length - 1].isdigit():
            return ".".join(parts[:length])
    return ""


def common_path(paths: Iterable[str]) -> str:
    """The deepest module that contains all the paths."""
    shared: list[str] = []
    for parts in zip(*(path.split(".") for path in paths), strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)


def name_of(nodes: Sequence[fx.Node], block: str = "") -> str:
    """What ran in a step: "transformer.h.3 [ln_1 + attn]", "lm_head", "1 (Linear) + 2 (ReLU)"."""
    working = [node for node in nodes if op_name(node) not in SAME_ORDER and node.meta.get("path")]
    paths = list(dict.fromkeys(node.meta["path"] for node in working))
    if not paths:
        return next((op_name(node) for node in reversed(nodes) if op_name(node)), "step")
    inside = [path for path in paths if _within(path, block)] if block else []
    prefix = block if inside else common_path(paths)
    if prefix:
        children = list(dict.fromkeys(child for path in inside or paths if (child := _child(path, prefix))))
        return f"{prefix} [{_joined(children)}]" if children else _titled(prefix, working)
    return _joined([_titled(path, working) for path in paths])


def _titled(path: str, nodes: Iterable[fx.Node]) -> str:
    """A bare number says nothing: add the module's class."""
    if not path.isdigit():
        return path
    kind = next((node.meta.get("module") for node in nodes if node.meta.get("path") == path), "")
    return f"{path} ({kind})" if kind else path


def _joined(names: list[str]) -> str:
    shown = names if len(names) <= _SHOWN else [*names[: _SHOWN - 1], "…", names[-1]]
    return " + ".join(shown).replace("+ … +", "+ …")


def _within(path: str, prefix: str) -> bool:
    return not prefix or path == prefix or path.startswith(prefix + ".")


def _child(path: str, prefix: str) -> str:
    return "" if path == prefix else path[len(prefix) + 1 :].split(".")[0]
