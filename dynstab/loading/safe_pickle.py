"""Read what torch.save wrote without running code.

The names that a pickle would import are read from its opcodes first. If all of them are
torch's own containers, torch.nn's classes and the pure functions that these keep as
attributes, torch's restricted unpickler builds the object; else nothing is executed. A
restricted pickle can still set any attribute of a module, so a module is accepted only if
no attribute shadows a method and no hook is installed.
"""

from __future__ import annotations

import inspect
import io
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import nn
from torch._utils import IMPORT_MAPPING, NAME_MAPPING
from torch._weights_only_unpickler import _get_allowed_globals

from dynstab.core.errors import LoadError, UnsafePickle, first_line
from dynstab.loading.loader import Options
from dynstab.loading.probe import DAMAGED
from dynstab.loading.reference import on_path

_FUNCTIONS = (
    "torch.nn.functional: relu gelu silu mish elu selu celu leaky_relu relu6 hardswish hardsigmoid hardtanh "
    "softmax log_softmax softplus logsigmoid sigmoid tanh tanhshrink softsign",
    "torch._C._nn: gelu softplus log_sigmoid elu_ leaky_relu_ softshrink",
    "torch: relu sigmoid tanh softmax log_softmax selu celu sin cos exp abs square sqrt erf",
)
# torch.relu is pickled as getattr(this class, "relu").
_METHOD_OWNER = "torch._C._VariableFunctionsClass"
_OWNER_CLASS = inspect.getattr_static(torch._C, "_VariableFunctionsClass")


_ZIP = b"PK\x03\x04"


def load_pickle(path: Path, options: Options) -> Any:
    """The object in a file of torch.save, zip or legacy; in a plain pickle only if trusted.

    Raises:
        UnsafePickle: it names globals that are not allowed; nothing was executed.
        LoadError: it is damaged, or trusted code fails.
    """
    if options.trust_pickle:
        return _load_trusted(path)
    allowed = allowed_globals(options.allow_globals)
    with path.open("rb") as stream:
        refuse_unsafe(str(path), named_globals(stream, str(path)), allowed)
    value = _load_restricted(path, allowed)
    refuse_disguised(str(path), value)
    return value


def allowed_globals(extra: Iterable[str] = ()) -> dict[str, Any]:
    """What a pickle may name besides torch's defaults, by dotted name.

    Raises:
        LoadError: one of `extra` cannot be imported.
    """
    allowed: dict[str, Any] = {"builtins.getattr": _function_of_torch, _METHOD_OWNER: _OWNER_CLASS}
    for module in vars(nn.modules).values():
        if inspect.ismodule(module):
            classes = (each for each in vars(module).values() if inspect.isclass(each) and issubclass(each, nn.Module))
            allowed |= {_name(each): each for each in classes if each.__module__.startswith("torch.nn.modules.")}
    for line in _FUNCTIONS:
        home, names = line.split(": ")
        owner = inspect.getattr_static(torch._C, "_nn") if home == "torch._C._nn" else import_module(home)
        allowed |= {f"{home}.{name}": getattr(owner, name) for name in names.split() if hasattr(owner, name)}
    return allowed | {name: _import(name) for name in extra}


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _function_of_torch(owner: Any, name: str) -> Any:
    """Stands in for `getattr` in a pickle: activation functions of torch, and nothing else."""
    if owner is not _OWNER_CLASS or name not in _FUNCTIONS[2].split(": ")[1].split():
        raise pickle.UnpicklingError(f"getattr of {name!r} is not allowed")
    return getattr(torch, name)


def _import(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    try:
        with on_path(Path.cwd()):
            return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise LoadError(
            f"--allow-global {name} cannot be imported ({error})",
            expected="package.module.Name",
            remedy="what lies in neither this folder nor the environment needs PYTHONPATH",
        ) from error


def named_globals(stream: BinaryIO, source: str) -> set[str]:
    """Every dotted name that a torch.save file or a plain pickle imports, read without executing.

    Raises:
        LoadError: the opcodes cannot be read to their end.
    """
    try:
        if not _is_zip(stream):
            return set().union(*_scan_all(stream))
        with zipfile.ZipFile(stream) as archive:
            (record,) = [name for name in archive.namelist() if name.count("/") <= 1 and name.endswith("data.pkl")]
            return _scan(io.BytesIO(archive.read(record)))
    except (*DAMAGED, MemoryError) as error:
        raise LoadError(
            f"{source} is a pickle, damaged or truncated ({first_line(error)})", remedy="write or fetch the file again"
        ) from error


def _is_zip(stream: BinaryIO) -> bool:
    # As torch decides it, by the head: a zip archive may also hide behind other content.
    head = stream.read(4)
    stream.seek(0)
    return head == _ZIP


def _scan_all(stream: BinaryIO) -> Iterator[set[str]]:
    """A legacy file is five pickles in a row, then raw storages; a plain pickle is one."""
    magic = b""
    for position in range(5):
        if not magic:
            magic = stream.read(32)
            stream.seek(0)
        yield _scan(stream)
        if position == 0 and not is_legacy(magic):
            return


def is_legacy(head: bytes) -> bool:
    """The head of a file in torch.save's format before 1.6: a pickled magic number."""
    number = torch.serialization.MAGIC_NUMBER
    return number.to_bytes(10, "little") in head[:16]


def _scan(stream: Any) -> set[str]:
    names: set[str] = set()
    strings: list[Any] = []  # what was pushed, so that STACK_GLOBAL finds its two strings
    memo: dict[int, Any] = {}
    argument: Any
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name in ("GLOBAL", "INST"):
            names.add(_python3_name(*argument.split(" ", 1)))
        elif opcode.name == "STACK_GLOBAL":
            names.add(".".join(map(str, strings[-2:])))
        elif "PUT" in opcode.name or opcode.name == "MEMOIZE":
            memo[len(memo) if argument is None else argument] = strings[-1] if strings else None
        elif "GET" in opcode.name:
            strings.append(memo.get(argument))
        elif opcode.name.startswith("EXT"):
            names.add(f"the registered extension {argument}")
        else:
            strings.append(argument)
    return names


def _python3_name(module: str, name: str) -> str:
    module, name = NAME_MAPPING.get((module, name), (module, name))
    return f"{IMPORT_MAPPING.get(module, module)}.{name}"


def refuse_unsafe(source: str, names: set[str], allowed: dict[str, Any]) -> None:
    """Raise UnsafePickle if a name is neither torch's default nor allowed."""
    # Legacy files name storage classes that torch resolves by itself.
    unsafe = sorted(
        each
        for each in names - set(_get_allowed_globals()) - set(allowed)
        if not (each.startswith("torch.") and each.endswith("Storage"))
    )
    if unsafe:
        shown = ", ".join(unsafe[:8]) + (f" and {len(unsafe) - 8} more" if len(unsafe) > 8 else "")
        raise UnsafePickle(
            f"{source} is a pickle that needs code; nothing was executed. It names {shown}",
            remedy="save model.state_dict() instead and pass --model REF; or allow single names with "
            f"--allow-global {unsafe[0]}; or, only if you trust its author, --trust-pickle",
        )


def _load_restricted(path: Path, allowed: dict[str, Any]) -> Any:
    pairs: list[Any] = [(value, name) for name, value in allowed.items()]
    try:
        with torch.serialization.safe_globals(pairs), warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = first_line(ValueError(str(error).rpartition("WeightsUnpickler error:")[2]))
        raise UnsafePickle(
            f"{path} is a pickle that cannot be read without running code; nothing was executed ({reason})",
            remedy="save it again with torch.save of today, or save model.state_dict() and pass --model REF, "
            "or, only if you trust its author, --trust-pickle",
        ) from error
    except MemoryError as error:
        raise LoadError(f"{path} does not fit into memory") from error
    except Exception as error:
        # Damaged bytes surface as any of a dozen exception types inside the unpickler.
        raise LoadError(
            f"{path} is damaged or truncated ({first_line(error)})", remedy="write or fetch the file again"
        ) from error


def _load_trusted(path: Path) -> Any:
    try:
        with warnings.catch_warnings(), on_path(Path.cwd()), path.open("rb") as file:
            warnings.simplefilter("ignore")
            head = file.read(32)
            file.seek(0)
            if head.startswith(_ZIP) or is_legacy(head):
                return torch.load(file, map_location="cpu", weights_only=False)
            return pickle.load(file)
    except (AttributeError, ImportError) as error:
        raise LoadError(
            f"{path} needs a class that cannot be imported ({first_line(error)})",
            remedy="make it importable (PYTHONPATH), or save model.state_dict() and pass --model path/file.py:factory",
        ) from error
    except Exception as error:
        # A trusted pickle runs the user's code, which may fail in any way.
        raise LoadError(f"{path} cannot be unpickled ({first_line(error)})") from error


def refuse_disguised(source: str, value: Any) -> None:
    """Raise UnsafePickle if a module in `value` has an attribute in a method's place, or a hook."""
    for module in _modules(value, set()):
        state = vars(module)
        shadowing = [name for name in state if callable(getattr(type(module), name, None))]
        hooks = [name for name, each in state.items() if name.endswith(("_hooks", "_hooks_with_kwargs")) and each]
        compiled = ["_compiled_call_impl"] if state.get("_compiled_call_impl") is not None else []
        if found := shadowing + hooks + compiled:
            raise UnsafePickle(
                f"{source} holds a {type(module).__name__} whose {', '.join(found)} was replaced",
                remedy="save model.state_dict() and pass --model REF, or, only if you trust its author, --trust-pickle",
            )


def _modules(value: Any, seen: set[int]) -> Iterator[nn.Module]:
    """Every module within containers and attributes, found without calling a method of theirs."""
    stack = [value]
    while stack:
        each = stack.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, nn.Module):
            yield each
            stack.extend(vars(each).values())
        elif isinstance(each, dict):
            stack.extend(each.values())
        elif isinstance(each, list | tuple | set):
            stack.extend(each)
