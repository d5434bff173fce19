"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from dynstab.core.errors import ReportError


def write_whole(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file atomically: a reader sees the old file or the new one, never a half.

    A link stays a link to the file that is written; a device or a pipe is written to, not put a file in its place.

    Raises:
        ReportError: it cannot be written.
    """
    target = Path(path).resolve()
    try:
        if target.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        if target.exists() and not target.is_file():
            target.write_text(text, encoding="utf-8")
        else:
            _replace(target, text)
    except OSError as error:
        raise ReportError(
            f"{path} cannot be written ({error.strerror or error})", remedy="choose a writable path"
        ) from error


def _replace(target: Path, text: str) -> None:
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    beside = Path(name)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        beside.chmod(0o644)
        beside.replace(target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
