"""The store of a training run: one SQLite file, one transaction a record, readable while it is written.

A write-ahead log keeps readers and the writer out of each other's way, and a process that is killed
loses at most the record that it was writing. A finished run is a single file that can be copied.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from dynstab.core.errors import StoreError
from dynstab.core.run import RunInfo
from dynstab.monitor.reader import RunReader, is_run, read_run
from dynstab.monitor.sqlite import PATIENCE, last_id, told
from dynstab.monitor.tables import TABLES, Record, create_tables

__all__ = ["RunReader", "RunStore", "is_run", "read_run"]


class RunStore:
    """A run that is being written. Make one with `create` or `resume`.

    Attributes:
        path: of the file, which differs from the one asked for where that held another run already.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, next_id: int) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = connection
        self._next_id = next_id
        self._file = _identity(path)
        self._locked = False

    @classmethod
    def create(cls, path: str | os.PathLike[str], info: RunInfo) -> RunStore:
        """Begin a run. Folders are made, and nothing is overwritten: "a.sqlite" that exists gives "a-2.sqlite".

        Raises:
            StoreError: the file cannot be made.
        """
        target = _claimed(Path(path))
        try:
            with told(target), _connected(target) as connection:
                create_tables(connection, info)
                # Only now: the header of the file itself then says whose it is, however early the process dies.
                _log_ahead(connection)
        except StoreError:
            # What was claimed and holds no run would be in the way of the next attempt.
            target.unlink()
            raise
        return cls(target, connection, next_id=1)

    @classmethod
    def resume(cls, path: str | os.PathLike[str], info: RunInfo, *, step: int) -> RunStore:
        """Continue a run from a checkpoint that was taken at `step`.

        Records of later steps go, since they are about to be written again. Where the run is gone, or
        belongs to a network with other places, groups or steps, a new run begins as in `create`.

        Raises:
            StoreError: the file is there and no run, or cannot be written.
        """
        target = Path(path)
        if not target.is_file() or not _continues(RunReader(target).info, info):
            return cls.create(path, info)
        with told(target), _connected(target) as connection:
            _log_ahead(connection)
            connection.execute("BEGIN IMMEDIATE")
            # Ids go on from those that go, so that a reader in another process misses nothing.
            last = last_id(connection)
            for table in TABLES.values():
                connection.execute(f"DELETE FROM {table.name} WHERE step > ?", (step,))
            connection.execute("UPDATE run SET finished = 0")
            connection.execute("COMMIT")
        return cls(target, connection, next_id=last + 1)

    def write(self, record: Record) -> None:
        """Append a record, in a transaction of its own.

        Raises:
            StoreError: the disk is full, another program holds the file, it was deleted or moved away, or the store
                is closed. The records before are whole, and a later write may succeed.
        """
        table = TABLES[type(record)]
        # SQLite would go on writing into a file that has no name any more.
        if _identity(self.path) != self._file:
            raise StoreError(
                f"the run's store {self.path} was deleted, moved or replaced while it was written",
                remedy="put it back where it was",
            )
        with told(self.path):
            try:
                self._open.execute(table.insertion, (self._next_id, *table.values(record)))
            except sqlite3.OperationalError:
                self._wait(0.0)
                raise
        self._next_id += 1
        if self._locked:
            self._wait(PATIENCE)

    def finish(self) -> None:
        """Note that the training came to its end.

        Raises:
            StoreError: as in `write`.
        """
        with told(self.path):
            self._open.execute("UPDATE run SET finished = 1")

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        if self._connection is None:
            return
        connection, self._connection = self._connection, None
        # Readers may hold the log, or the disk be full: then the log stays beside the file, which is whole too.
        with contextlib.suppress(sqlite3.Error):
            connection.execute("PRAGMA busy_timeout = 0")
            connection.execute("PRAGMA journal_mode = DELETE")
        connection.close()

    def _wait(self, seconds: float) -> None:
        """Training must not pause at every step while another program holds the file."""
        self._locked = seconds == 0.0
        self._open.execute(f"PRAGMA busy_timeout = {round(1000 * seconds)}")

    @property
    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError(f"the run's store {self.path} is closed", remedy="resume the run to add records")
        return self._connection


def _identity(path: Path) -> tuple[int, int] | None:
    """Of the file, whatever it is called; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _continues(old: RunInfo, new: RunInfo) -> bool:
    return all(getattr(old, name) == getattr(new, name) for name in ("places", "groups", "states", "steps"))


def _claimed(path: Path) -> Path:
    """The path, or the first numbered one beside it that no file has; an empty file stands there."""
    with told(path):
        if path.is_dir():
            raise StoreError(
                f"{path} is a folder", expected="the path of a file", remedy=f"for example {path / 'run.sqlite'}"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        number, target = 1, path
        while True:
            try:
                os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
                return target
            except FileExistsError:
                number += 1
                target = path.with_name(f"{path.stem}-{number}{path.suffix}")


@contextlib.contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that outlives the block, unless that fails."""
    # Every statement is its own transaction; a training loop may move between threads.
    connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
    try:
        yield connection
    except BaseException:
        connection.close()
        raise


def _log_ahead(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    # What was committed outlives the process at once; the loss of power may cost the last records, never the file.
    connection.execute("PRAGMA synchronous = NORMAL")
