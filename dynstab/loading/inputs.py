"""The grammar of `--input`, and the tensors that it stands for.

    [NAME=]randn:2,3,32,32[:dtype]          normal noise
    [NAME=]randint:2,16:0..50257[:dtype]    whole numbers, from the first up to below the second
    [NAME=]zeros:2,3[:dtype]   [NAME=]ones:2,3[:dtype]
    [NAME=]@batch.npy[:dtype]               a .npy, .npz, .pt or .safetensors file

Without NAME the inputs are positional, in their order.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dynstab.core.errors import InputError, LoadError, first_line
from dynstab.loading.loaded import describe_value
from dynstab.loading.loader import Options
from dynstab.loading.probe import Probe
from dynstab.loading.safe_pickle import load_pickle

_DTYPES = {
    name: getattr(torch, name)
    for name in ("float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")
}
_GRAMMAR = "[NAME=]randn:2,3,32,32, randint:2,16:0..50257, zeros:2,3, ones:2,3 or @file.npy, with :dtype at the end"
_NAMED = re.compile(r"(?:(?P<name>[A-Za-z_]\w*)=)?(?P<rest>.+)", re.DOTALL)
_DRAWN = re.compile(
    r"(?P<kind>randn|randint|zeros|ones):(?P<shape>\d+(?:,\d+)*)"
    r"(?::(?P<low>-?\d+)\.\.(?P<high>-?\d+))?(?::(?P<dtype>[a-z]\w*))?"
)


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """One argument, parsed: `str(spec)` is the specification again.

    Attributes:
        name: of a keyword argument, None for a positional one.
        low, high: of randint, half open. path: of a file. dtype: None for the natural one.
    """

    kind: Literal["randn", "randint", "zeros", "ones", "file"]
    shape: tuple[int, ...] = ()
    low: int = 0
    high: int = 0
    dtype: torch.dtype | None = None
    name: str | None = None
    path: Path | None = None

    def __str__(self) -> str:
        name = f"{self.name}=" if self.name else ""
        body = f"@{self.path}" if self.kind == "file" else f"{self.kind}:{','.join(map(str, self.shape))}"
        bounds = f":{self.low}..{self.high}" if self.kind == "randint" else ""
        return name + body + bounds + (f":{str(self.dtype).removeprefix('torch.')}" if self.dtype else "")


def parse_spec(text: str) -> InputSpec:
    """One `--input`.

    Raises:
        InputError: it does not follow the grammar.
    """
    named = _NAMED.fullmatch(text.strip())
    if named is None:
        raise InputError("an empty --input", expected=_GRAMMAR)
    name, rest = named["name"], named["rest"]
    if rest.startswith("@"):
        path, dtype = _split_dtype(rest[1:])
        return InputSpec(kind="file", path=path, dtype=dtype, name=name)
    drawn = _DRAWN.fullmatch(rest)
    if drawn is None:
        raise InputError(f"--input {text}", expected=_GRAMMAR)
    kind: Any = drawn["kind"]
    shape = tuple(int(each) for each in drawn["shape"].split(","))
    if (drawn["low"] is not None) != (kind == "randint"):
        raise InputError(f"--input {text}", expected="bounds for randint alone, as in randint:2,16:0..50257")
    low, high = int(drawn["low"] or 0), int(drawn["high"] or 0)
    if kind == "randint" and low >= high:
        raise InputError(f"--input {text} has no number from {low} up to below {high}", expected="LOW below HIGH")
    dtype = _parse_dtype(drawn["dtype"])
    if kind == "randn" and dtype is not None and not dtype.is_floating_point:
        raise InputError(f"--input {text}", expected="a floating-point dtype for randn")
    return InputSpec(kind=kind, shape=shape, low=low, high=high, dtype=dtype, name=name)


def _parse_dtype(word: str | None) -> torch.dtype | None:
    if word is not None and word not in _DTYPES:
        raise InputError(f"the dtype {word!r}", expected=", ".join(_DTYPES))
    return _DTYPES[word] if word else None


def _split_dtype(text: str) -> tuple[Path, torch.dtype | None]:
    path, colon, word = text.rpartition(":")
    if colon and word in _DTYPES and not Path(text).exists():
        return Path(path), _DTYPES[word]
    return Path(text), None


def make_inputs(
    specs: Iterable[str | InputSpec],
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> tuple[tuple[Any, ...], dict[str, Any], tuple[str, ...]]:
    """Positional arguments, keyword arguments and one line on each.

    The same seed gives the same numbers, in any dtype and on any device; torch's own
    random state is not touched.

    Args:
        dtype: of floating-point inputs that name none.

    Raises:
        InputError: a specification cannot be read, a file neither, or a name comes twice.
    """
    generator = torch.Generator().manual_seed(seed)
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    lines: list[str] = []
    for spec in (parse_spec(each) if isinstance(each, str) else each for each in specs):
        for name, value in _values(spec, generator, dtype):
            value = value.to(device)
            if name in kwargs:
                raise InputError(f"two inputs of the name {name!r}", expected="each name once")
            if name is None:
                args.append(value)
            else:
                kwargs[name] = value
            prefix = f"{name}=" if name and not spec.name else ""
            lines.append(f"{prefix}{spec}" + (f", {describe_value(value)}" if spec.kind == "file" else ""))
    return tuple(args), kwargs, tuple(lines)


def _values(spec: InputSpec, generator: torch.Generator, dtype: torch.dtype) -> list[tuple[str | None, Tensor]]:
    if spec.kind != "file":
        return [(spec.name, _draw(spec, generator, dtype))]
    assert spec.path is not None
    found = read_tensors(spec.path)
    if spec.dtype is not None:
        found = {name: value.to(spec.dtype) for name, value in found.items()}
    if len(found) == 1:
        return [(spec.name, next(iter(found.values())))]
    if spec.name is not None:
        if spec.name not in found:
            raise InputError(f"{spec.path} has no entry {spec.name!r}", expected=f"one of {', '.join(found)}")
        return [(spec.name, found[spec.name])]
    # Several named tensors are keyword arguments, as a tokenizer saves them; a list is positional.
    return [(None if name.isdigit() else name, value) for name, value in found.items()]


def _draw(spec: InputSpec, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    if spec.kind == "randint":
        return torch.randint(spec.low, spec.high, spec.shape, generator=generator).to(spec.dtype or torch.int64)
    if spec.kind == "randn":
        return torch.randn(spec.shape, generator=generator, dtype=torch.float64).to(spec.dtype or dtype)
    value = 0 if spec.kind == "zeros" else 1
    return torch.full(spec.shape, value, dtype=spec.dtype or dtype)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a file of data, by name, or by position where they have none.

    Raises:
        InputError: no such file, of another format, or without a tensor.
    """
    try:
        found = _read(path)
    except (OSError, ValueError, SafetensorError, LoadError, TypeError) as error:
        # What a refused pickle advises is for model files; here only what was got counts.
        reason = error.got if isinstance(error, LoadError) else getattr(error, "strerror", None) or first_line(error)
        raise InputError(
            f"{os.fspath(path)} cannot be read as inputs ({reason})",
            expected="a .npy, .npz, .pt or .safetensors file",
        ) from error
    if not found:
        raise InputError(f"{os.fspath(path)} holds no tensor", expected="a .npy, .npz, .pt or .safetensors file")
    return found


def _read(path: Path) -> dict[str, Tensor]:
    probe = Probe(path)
    if probe.head.startswith(b"\x93NUMPY"):
        return {"0": torch.from_numpy(np.load(path, allow_pickle=False))}
    if probe.head.startswith(b"PK") and probe.records and all(name.endswith(".npy") for name in probe.records):
        with np.load(path, allow_pickle=False) as archive:
            return {name: torch.from_numpy(archive[name]) for name in archive.files}
    if probe.safetensors_header is not None:
        return load_file(path)
    value = load_pickle(path, Options())
    if isinstance(value, Tensor):
        return {"0": value}
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return {str(name): each for name, each in pairs if isinstance(each, Tensor)}
