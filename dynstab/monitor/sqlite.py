"""What writing and reading a run's file have in common."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from dynstab.core.errors import StoreError
from dynstab.monitor.tables import TABLES

PATIENCE = 1.0
"""Seconds to wait for another program's lock."""

_PARTICIPLES = {"write": "written", "read": "read"}


@contextlib.contextmanager
def told(path: Path, *, doing: str = "write") -> Iterator[None]:
    """What SQLite and the file system say, in one sentence."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise StoreError(
                f"the run's store {path} is locked by another program", remedy="close that program"
            ) from error
        remedy = "make room on the disk or choose another path" if doing == "write" else ""
        raise StoreError(f"the run's store {path} cannot be {_PARTICIPLES[doing]} ({error})", remedy=remedy) from error
    except OSError as error:
        raise StoreError(
            f"the run's store {path} cannot be {_PARTICIPLES[doing]} ({error.strerror or error})",
            remedy="choose another path" if doing == "write" else "",
        ) from error


def last_id(connection: sqlite3.Connection) -> int:
    """The number of the newest record, 0 where there is none."""
    return max(connection.execute(f"SELECT max(id) FROM {table.name}").fetchone()[0] or 0 for table in TABLES.values())
