"""`load`: the one door through which models come in."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from dynstab.core.errors import LoadError
from dynstab.loading.foreign import describe, directory_contents
from dynstab.loading.loaded import LoadedModel
from dynstab.loading.loader import Options, loaders
from dynstab.loading.probe import Probe
from dynstab.loading.reference import build, resolve

Target = str | os.PathLike[str] | nn.Module | Callable[[], Any]

_LOADABLE = (
    "a module saved by torch.save, weights with --model, TorchScript, .pt2, safetensors, "
    "a Hugging Face directory, or a reference package.module:factory"
)
_REFERENCE = re.compile(r"(?P<module>.+):(?P<attribute>[A-Za-z_][\w.]*)")


def load(
    target: Target,
    *,
    model: str | None = None,
    trust_pickle: bool = False,
    allow_globals: tuple[str, ...] | list[str] = (),
) -> LoadedModel:
    """The model that a file, a directory, a reference or an object holds. Content decides, not the suffix.

    Args:
        target: a path, `package.module:factory`, `path/file.py:factory`, a module, or a callable
            without required arguments that returns a module or `(module, inputs)`.
        model: the reference of the architecture, where the target holds weights alone.
        trust_pickle: run whatever a pickle names. Only for files from people whom you trust.
        allow_globals: dotted names that a pickle may use besides torch.nn's own.

    Raises:
        LoadError: there is nothing to load, or not enough.
        UnsafePickle: a pickle names code; nothing was executed.
    """
    options = Options(model=model, trust_pickle=trust_pickle, allow_globals=tuple(allow_globals))
    if isinstance(target, nn.Module):
        return LoadedModel(module=target, source=type(target).__qualname__, format="module")
    if not isinstance(target, str | os.PathLike):
        return _load_object(target)
    text = os.fspath(target)
    path = Path(text).expanduser()
    if not path.exists() and (reference := _REFERENCE.fullmatch(text)):
        module, inputs = build(resolve(reference["module"], reference["attribute"]), name=text)
        return LoadedModel(module=module, source=text, format="reference", inputs=inputs)
    return _load_path(path, options)


def _load_object(target: Any) -> LoadedModel:
    name = getattr(target, "__qualname__", type(target).__qualname__)
    module, inputs = build(target, name=name)
    return LoadedModel(module=module, source=name, format="factory", inputs=inputs)


def _load_path(path: Path, options: Options) -> LoadedModel:
    if not path.exists():
        raise LoadError(f"no file, directory or reference {str(path)!r}", expected=_LOADABLE, remedy=_near(path))
    try:
        probe = Probe(path)
        for loader in loaders():
            match = loader.sniff(probe)
            if match is not None:
                return loader.load(match, options)
        looks = f"holds {directory_contents(path)}" if probe.is_directory else f"looks like {describe(probe)}"
    except OSError as error:
        raise LoadError(f"{path} cannot be read ({error.strerror or error})", expected=_LOADABLE) from error
    if probe.is_directory:
        raise LoadError(f"{path} is a directory without config.json; it {looks}", expected=_LOADABLE)
    raise LoadError(f"{path} {looks}", expected=_LOADABLE)


def _near(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    close = difflib.get_close_matches(path.name, [each.name for each in path.parent.iterdir()], n=2)
    return f"nearby: {', '.join(close)}" if close else ""
