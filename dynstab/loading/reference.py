"""`package.module:factory` and `path/file.py:factory`: the user's own code, imported and called."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from dynstab.core.errors import LoadError
from dynstab.loading.loaded import Inputs, as_inputs

_WANTED = "a module, a callable that returns one, or one that returns (module, inputs)"


def build_reference(reference: str) -> tuple[nn.Module, Inputs | None]:
    """The module that a reference names, with its example inputs if it brings some.

    Raises:
        LoadError: it cannot be read, imported or called, or yields no module.
    """
    module, colon, attribute = reference.rpartition(":")
    if not colon or not module or not attribute:
        raise LoadError(f"the reference {reference!r}", expected="package.module:factory or path/file.py:factory")
    return build(resolve(module, attribute), name=reference)


def resolve(module: str, attribute: str) -> Any:
    """The object `attribute` (dotted) of a module or of a Python file.

    Raises:
        LoadError: there is no such module, file or attribute, or importing it fails.
    """
    path = Path(module).expanduser()
    found: Any = _import_file(path) if path.suffix == ".py" or path.is_file() else _import_name(module)
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [name for name in vars(found) if not name.startswith("_")] if hasattr(found, "__dict__") else []
            raise LoadError(f"{module} has no attribute {attribute!r}", remedy=f"it has {', '.join(public[:12])}")
        found = getattr(found, part)
    return found


def build(target: Any, *, name: str) -> tuple[nn.Module, Inputs | None]:
    """The module that an object is or makes.

    Raises:
        LoadError: it needs arguments, raises, or makes no module.
    """
    if not isinstance(target, nn.Module):
        target = _call(target, name)
    module, given = target if isinstance(target, tuple) and len(target) == 2 else (target, None)
    if not isinstance(module, nn.Module):
        raise LoadError(f"{name} gave {type(target).__name__}", expected=_WANTED)
    return module, None if given is None else as_inputs(given, origin=f"from {name}")


def _call(target: Any, name: str) -> Any:
    if not callable(target):
        raise LoadError(f"{name} is {type(target).__name__}", expected=_WANTED)
    missing = _required(target)
    if missing:
        raise LoadError(
            f"{name} needs arguments ({', '.join(missing)})",
            expected="a callable without required arguments",
            remedy="name a function that calls it with yours",
        )
    with _explained(f"{name} raised"):
        return target()


def _required(target: Any) -> list[str]:
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):  # some built-in callables have no signature: calling them tells
        return []
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [each.name for each in parameters if each.default is each.empty and each.kind not in variadic]


def _import_name(name: str) -> ModuleType:
    with on_path(Path.cwd()), _explained(f"importing {name} raised"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name and (name == error.name or name.startswith(f"{error.name}.")):
                raise LoadError(
                    f"no module {error.name!r}", expected="package.module:factory or path/file.py:factory"
                ) from error
            raise


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise LoadError(f"no file {str(path)!r}", expected="path/file.py:factory")
    # A name of its own: two files called model.py must not meet in sys.modules.
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    name = f"dynstab_reference_{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise LoadError(f"{path} is not Python source", expected="path/file.py:factory")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with on_path(path.resolve().parent), _explained(f"importing {path} raised"):
            spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


@contextmanager
def on_path(folder: Path) -> Iterator[None]:
    """Let what the user names import its neighbours."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn any failure of the user's code into a LoadError that says where it happened."""
    try:
        yield
    except LoadError:
        raise
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        message = (str(error).splitlines() or [""])[0]
        raise LoadError(f"{what} {type(error).__name__}: {message}{where}") from error
