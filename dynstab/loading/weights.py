"""Named tensors and the architecture that they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dynstab.core.errors import LoadError
from dynstab.loading.loaded import LoadedModel
from dynstab.loading.loader import Match, Options
from dynstab.loading.reference import build_reference

_NESTS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params", "ema")
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")


def find_weights(value: Any) -> dict[str, Tensor] | None:
    """The named tensors in a checkpoint: itself, or under one of the usual names; None where there are none."""
    if not isinstance(value, Mapping):
        return None
    tensors = {name: each for name, each in value.items() if isinstance(name, str) and isinstance(each, Tensor)}
    if tensors and len(tensors) == len(value):
        return tensors
    for nest in _NESTS:
        inner = find_weights(value.get(nest))
        if inner:
            return inner
    return None


def load_weights(tensors: Mapping[str, Tensor], match: Match, options: Options) -> LoadedModel:
    """The architecture of `--model` with these weights.

    Raises:
        LoadError: no architecture was named, or the weights do not fit it.
    """
    if options.model is None:
        raise LoadError(
            f"{match.source} holds weights without an architecture: {summary(tensors)}",
            remedy="name a callable that builds the model: --model package.module:factory or path/file.py:factory",
        )
    module, inputs = build_reference(options.model)
    notes = fit(module, tensors, source=match.source, model=options.model)
    return LoadedModel(
        module=module,
        source=match.source,
        format=match.format,
        trusted=options.trust_pickle,
        inputs=inputs,
        notes=(f"architecture from {options.model}", *notes),
    )


def summary(tensors: Mapping[str, Tensor]) -> str:
    """How many tensors, of what type, and the first names and shapes."""
    dtypes = sorted({str(each.dtype).removeprefix("torch.") for each in tensors.values()})
    count = sum(each.numel() for each in tensors.values())
    first = ", ".join(f"{name} {tuple(each.shape)}" for name, each in list(tensors.items())[:4])
    rest = ", ..." if len(tensors) > 4 else ""
    return f"{len(tensors)} tensors with {count:,} entries, {' and '.join(dtypes)}: {first}{rest}"


def fit(module: nn.Module, tensors: Mapping[str, Tensor], *, source: str, model: str) -> tuple[str, ...]:
    """Copy the weights into the module, with the prefixes of wrappers removed where that makes the names match.

    Returns:
        Notes: the prefix that was removed, a change of dtype.

    Raises:
        LoadError: names or shapes differ.
    """
    own = module.state_dict(keep_vars=True)
    renamed, note = min(_renamings(tensors), key=lambda pair: len(set(own) ^ set(pair[0])))
    present = {id(own[name]) for name in renamed if name in own}
    # A tied weight is stored once; BatchNorm's counter is absent from old files and not used in evaluation.
    missing = [
        name for name in own if name not in renamed
        and id(own[name]) not in present
        and not name.endswith("num_batches_tracked")
    ]  # fmt: skip
    unexpected = [name for name in renamed if name not in own]
    reshaped = [
        f"{name} is {tuple(each.shape)} in the file and {tuple(own[name].shape)} in the model"
        for name, each in renamed.items()
        if name in own and each.shape != own[name].shape and not _uninitialised(own[name])
    ]
    if missing or unexpected or reshaped:
        raise LoadError(
            f"the weights of {source} do not fit {model}: {_mismatch(missing, unexpected, reshaped)}",
            remedy="name the factory that builds this very architecture",
        )
    module.load_state_dict(renamed, strict=False, assign=any(each.is_meta for each in own.values()))
    lifted = next((n for n, t in renamed.items() if t.is_floating_point() and t.dtype != own[n].dtype), None)
    changed = f"weights stored as {renamed[lifted].dtype}, used as {own[lifted].dtype}" if lifted else ""
    return tuple(each.replace("torch.", "") for each in (note, changed) if each)


def _uninitialised(tensor: Any) -> bool:
    return torch.nn.parameter.is_lazy(tensor)


def _renamings(tensors: Mapping[str, Tensor]) -> list[tuple[dict[str, Tensor], str]]:
    """The names as they are, and without every chain of known prefixes that all of them carry."""
    found = [(dict(tensors), "")]
    current, removed = dict(tensors), ""
    if any("_orig_mod." in name for name in current):  # torch.compile may stand anywhere inside
        current = {name.replace("_orig_mod.", ""): each for name, each in current.items()}
        found.append((current, "'_orig_mod.' removed from the names"))
    while prefix := next((each for each in _PREFIXES if all(name.startswith(each) for name in current)), None):
        current = {name.removeprefix(prefix): each for name, each in current.items()}
        removed += prefix
        found.append((current, f"{removed!r} removed from the names"))
    return found


def _mismatch(missing: list[str], unexpected: list[str], reshaped: list[str]) -> str:
    parts = []
    for words, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped)):
        if names:
            parts.append(f"{len(names)} {words} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})")
    return ", ".join(parts)
