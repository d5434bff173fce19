"""Reading a run's file: once and whole, or again and again while it is written."""

from __future__ import annotations

import contextlib
import heapq
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from dynstab.core.errors import StoreError, first_line
from dynstab.core.run import RUN_SCHEMA_VERSION, Run, RunInfo
from dynstab.monitor.sqlite import PATIENCE, last_id, told
from dynstab.monitor.tables import APPLICATION_ID, TABLES, Record

_MAGIC = b"SQLite format 3\0"


class RunReader:
    """A run as it stands, and then whatever is added to it.

    Every call opens the file anew, so that a reader never holds the writer up.

    Raises:
        StoreError: no such file, no run, a run of another schema version, or one that cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._seen = 0
        with _reading(self.path) as connection:
            self.info = _info(connection, self.path)

    @property
    def finished(self) -> bool:
        """Did the training come to its end, or is it running or was killed?"""
        with _reading(self.path) as connection:
            return _finished(connection)

    def whole(self, *, most: int | None = None) -> Run:
        """Everything up to now, as in `read_run`; `new` goes on from here."""
        with _reading(self.path) as connection:
            count = connection.execute("SELECT count(*) FROM signals").fetchone()[0]
            clauses = {"signals": _thinning(count, most)} if most is not None and count > most else {}
            records = {
                table.name: tuple(record for _, record in table.rows(connection, clauses.get(table.name, "")))
                for table in TABLES.values()
            }
            self._seen = last_id(connection)
            return Run(
                info=_info(connection, self.path),
                finished=_finished(connection),
                thinned_from=count if clauses else None,
                **records,
            )

    def new(self) -> tuple[Record, ...]:
        """The records since the last call, in the order of writing."""
        return tuple(self.records())

    def records(self) -> Iterator[Record]:
        """As `new`, one after the other: a long run need not fit into memory."""
        with _reading(self.path) as connection:
            rows = (table.rows(connection, "WHERE id > ?", (self._seen,)) for table in TABLES.values())
            for number, record in heapq.merge(*rows, key=lambda row: row[0]):
                self._seen = number
                yield record


def read_run(path: str | os.PathLike[str], *, most: int | None = None) -> Run:
    """Everything that a store holds, of a run that is finished, running or was killed.

    Args:
        most: about how many signals to read, the first and the last among them. Of the stretches between them the
            step with the greatest loss is kept (NaN counts as greatest), so that no spike is lost. None for all.

    Raises:
        StoreError: no such file, no run, a run of another schema version, or one that cannot be read.
    """
    return RunReader(path).whole(most=most)


def is_run(path: str | os.PathLike[str]) -> bool:
    """Is this an SQLite file, going by its content? `read_run` says whether there is a run in it."""
    try:
        with open(path, "rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def _thinning(count: int, most: int) -> str:
    """Keeps the first signal of each of `most` / 2 stretches and the one with the greatest loss, and the very last."""
    width = -(-2 * count // most)
    # SQLite takes the bare column `id` from the row in which max() or min() was found.
    return (
        f"WHERE id IN (SELECT id FROM (SELECT id, max(loss) FROM ranked GROUP BY place / {width})"
        f" UNION SELECT id FROM (SELECT min(id) AS id FROM ranked GROUP BY place / {width})"
        " UNION SELECT max(id) FROM signals)"
    ).replace("ranked", "(SELECT id, loss, row_number() OVER (ORDER BY id) - 1 AS place FROM signals)")


def _finished(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT finished FROM run").fetchone()[0])


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    if path.is_dir():
        raise StoreError(f"{path.resolve()} is a folder", expected="the file that a monitor writes")
    if not path.is_file():
        raise StoreError(f"there is no run {path}", expected="the file that a monitor writes")
    if not is_run(path):
        raise StoreError(f"{path} is not the store of a run", expected="an SQLite file that dynstab wrote")
    with told(path, doing="read"), contextlib.closing(_read_only(path)) as connection:
        if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise StoreError(f"{path} is another program's SQLite file", expected="one that dynstab wrote")
        connection.execute("BEGIN")
        try:
            yield connection
        except (ValueError, TypeError) as error:
            raise StoreError(f"{path} holds a record that cannot be read ({first_line(error)})") from error


def _read_only(path: Path) -> sqlite3.Connection:
    """In a folder that cannot be written SQLite finds no place for its lock, and a file there does not change."""
    address = f"file:{quote(str(path.resolve()))}?mode=ro"
    lone = not os.access(path.parent, os.W_OK) and not Path(f"{path}-wal").exists()
    return sqlite3.connect(address + ("&immutable=1" if lone else ""), uri=True, timeout=PATIENCE, isolation_level=None)


def _info(connection: sqlite3.Connection, path: Path) -> RunInfo:
    info = RunInfo.model_validate_json(connection.execute("SELECT info FROM run").fetchone()[0])
    if info.schema_version.split(".")[0] != RUN_SCHEMA_VERSION.split(".")[0]:
        raise StoreError(
            f"{path} has schema version {info.schema_version}",
            expected=f"{RUN_SCHEMA_VERSION.split('.')[0]}.x",
            remedy="read it with the dynstab that wrote it",
        )
    return info
