"""What a file is, by its first bytes and, for archives, by its table of contents. Nothing is executed."""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from functools import cached_property
from pathlib import Path
from typing import Any

from dynstab.core.errors import LoadError

# What zipfile raises on damaged bytes; RuntimeError is an encrypted member.
DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, LookupError, ValueError, RuntimeError)

_HEAD = 512
_SAFETENSORS_HEADER_LIMIT = 100_000_000  # the format's own limit


class Probe:
    """A file or a directory, looked at but not loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_directory = path.is_dir()
        self.size = 0 if self.is_directory else path.stat().st_size

    @cached_property
    def head(self) -> bytes:
        """The first bytes; empty for a directory."""
        if self.is_directory:
            return b""
        with self.path.open("rb") as file:
            return file.read(_HEAD)

    @cached_property
    def records(self) -> tuple[str, ...]:
        """The names inside a readable zip archive, without the folder that torch puts around them."""
        return tuple(name.partition("/")[2] or name for name in self._names)

    @cached_property
    def _names(self) -> tuple[str, ...]:
        if not self.head.startswith(b"PK\x03\x04"):
            return ()
        try:
            with zipfile.ZipFile(self.path) as archive:
                return tuple(archive.namelist())
        except DAMAGED:
            return ()

    def read(self, record: str) -> bytes:
        """One member of the archive, named as in `records`.

        Raises:
            LoadError: it is damaged.
        """
        try:
            with zipfile.ZipFile(self.path) as archive:
                return archive.read(self._names[self.records.index(record)])
        except DAMAGED as error:
            raise LoadError(
                f"{self.path} is damaged or truncated ({error})", remedy="write or fetch the file again"
            ) from error

    @property
    def cut_zip(self) -> bool:
        """A zip archive whose table of contents, which stands at its end, is gone."""
        return self.head.startswith(b"PK\x03\x04") and not self._names

    @cached_property
    def safetensors_header(self) -> dict[str, Any] | None:
        """The header of a safetensors file (its length in 8 bytes, then JSON), None where it is none."""
        length = int.from_bytes(self.head[:8], "little")
        if len(self.head) < 10 or self.head[8:9] != b"{" or not 2 <= length <= _SAFETENSORS_HEADER_LIMIT:
            return None
        with self.path.open("rb") as file:
            file.seek(8)
            text = file.read(length)
        try:
            header = json.loads(text)
        except (json.JSONDecodeError, UnicodeDecodeError):
            return None
        return header if isinstance(header, dict) else None
