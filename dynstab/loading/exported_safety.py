"""What a .pt2 archive may contain, checked before torch reads it.

torch evaluates the size expressions of such a file, looks its functions up by dotted name,
unpickles what is not a raw tensor without restriction and runs the compiled code inside; so a
foreign file is first held against the small language that torch.export writes.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import Any

from dynstab.core.errors import LoadError, UnsafePickle
from dynstab.loading.probe import Probe
from dynstab.loading.safe_pickle import named_globals, refuse_unsafe
from dynstab.loading.script_ops import UNSAFE

_OPS = re.compile(r"torch\.ops\.(aten|prims|prim|higher_order|quantized_decomposed|torchvision)\.(\w+)(\.\w+)?")
_FUNCTIONS = re.compile(
    r"_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|not_|xor|getitem)"
    r"|math\.\w+|torch\.(_sym_|sym_)\w+|torch\._C\._set_grad_enabled"
    r"|torch\.amp\.autocast_mode\._(enter|exit)_autocast"
)
_SYMBOL = re.compile(r"Symbol\('\w+'(, \w+=(True|False))*\)")
_EXPRESSION = re.compile(
    r"(\b(Max|Min|Mod|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|Piecewise|ceiling|floor|Integer|Float|Rational|Abs|Add|Mul|Pow"
    r"|FloorDiv|ModularIndexing|PythonMod|CeilDiv|CeilToInt|FloorToInt|IntTrueDiv|FloatTrueDiv|ToFloat|TruncToInt"
    r"|Where|RoundToInt|PowByNatural|Identity|true|false|True|False|oo|int_oo|[a-z]{1,4}\d+)\b|\d+(\.\d+)?"
    r"|evaluate=False|[-+*/%(),<>=!&|~ ])*"
)
_NAME = re.compile(r"[\w.\[\]]*")
_COMPILED = "data/aotinductor/"
_TEXT = ("code/", ".data/", "extra/", "extra_files/", "archive_format", "archive_version", "byteorder", "version")
_PAYLOADS = re.compile(r"(data/(?:weights|constants)/)[^/]*_config\.json")
_RAW = re.compile(r"(weight|tensor)_\d+")


def refuse_unsafe_program(probe: Probe) -> None:
    """Raise UnsafePickle if the archive names functions, expressions or pickles beyond torch.export's own.

    Raises:
        LoadError: a record cannot be read.
    """
    if len(set(probe.records)) != len(probe.records):
        # Two readers of the archive could then see two contents.
        raise UnsafePickle(f"{probe.path} holds two records of one name; nothing was executed")
    contents = {record: _json(probe, record) for record in probe.records if record.endswith(".json")}
    raw = _raw_tensors(contents)
    for record in probe.records:
        if record.startswith(_COMPILED):
            raise UnsafePickle(
                f"{probe.path} holds compiled code ({record}); nothing was executed",
                remedy="export it with torch.export.save alone, or, only if you trust it, --trust-pickle",
            )
        if record in contents:
            _check_json(probe, record, contents[record])
        elif record not in raw and not record.startswith(_TEXT) and (data := probe.read(record)):
            source = f"{record} in {probe.path}"
            refuse_unsafe(source, named_globals(io.BytesIO(data), source), {})


def _json(probe: Probe, record: str) -> Any:
    try:
        return json.loads(probe.read(record))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise LoadError(f"{record} in {probe.path} is not JSON", remedy="write the file again") from error


def _raw_tensors(contents: dict[str, Any]) -> set[str]:
    """The records that torch reads as plain numbers, whatever bytes they begin with.

    A name that any entry has unpickled is not among them, in whatever case and folder it is written.
    """
    raw, pickled = set[str](), set[str]()
    for record, content in contents.items():
        folder = _PAYLOADS.fullmatch(record)
        entries = content.get("config") if folder and isinstance(content, dict) else None
        for entry in entries.values() if isinstance(entries, dict) else ():
            name = str(entry.get("path_name", "")) if isinstance(entry, dict) else ""
            if folder and _RAW.fullmatch(name) and entry.get("use_pickle") is False:
                raw.add(folder[1] + name)
            else:
                pickled.add(name.rpartition("/")[2].lower())
    return {each for each in raw if each.rpartition("/")[2] not in pickled}


def _check_json(probe: Probe, record: str, content: Any) -> None:
    for key, text in _strings(content, ""):
        if not _harmless(key, text):
            raise UnsafePickle(
                f"{record} in {probe.path} holds the {key} {text[:60]!r}, which torch.export does not write; "
                "nothing was executed",
                remedy="save model.state_dict() and pass --model REF, or, only if you trust it, --trust-pickle",
            )


def _harmless(key: str, text: str) -> bool:
    if key in ("target", "as_operator"):
        return _harmless_target(text)
    if key == "expr_str":
        return _EXPRESSION.fullmatch(_SYMBOL.sub("s0", text)) is not None
    if key == "name" or key.endswith("_name"):
        return _NAME.fullmatch(text) is not None
    return True


def _harmless_target(text: str) -> bool:
    if "." not in text:  # an attribute of the graph's own module
        return _NAME.fullmatch(text) is not None
    ops = _OPS.fullmatch(text)
    if ops is not None:
        return ops[2] not in UNSAFE
    return _FUNCTIONS.fullmatch(text) is not None


def _strings(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Every string in nested JSON, with the nearest key above it."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from _strings(each, name)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each, key)
