"""The tables of a run's store: one for each kind of record, its columns the fields of that record.

Numbers and texts are plain columns, so that any SQLite client can ask `select step, loss from signals`. A
series is a blob of little-endian float32, a structured value is JSON. SQLite has no NaN: it is the text
"NaN", as in report.json, so that a loss that is not a number differs from one that was not given (null).
"""

from __future__ import annotations

import math
import sqlite3
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

import numpy as np
from pydantic import TypeAdapter

from dynstab.core.frozen import Frozen
from dynstab.core.run import Incident, PostMortem, Probe, RunInfo, Signal

Record = Signal | Probe | Incident | PostMortem
R = TypeVar("R", bound=Frozen)

APPLICATION_ID = 0x64796E73
"""In the header of every run's file ("dyns"), where `file` and other programs look for the owner of a database."""

_FLOAT32 = np.dtype("<f4")
_PLAIN = {int: "INTEGER", bool: "INTEGER", str: "TEXT"}


@dataclass(frozen=True)
class Column:
    """One field of a record: its SQL type, and the way to SQLite and back."""

    name: str
    sql: str
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


@dataclass(frozen=True)
class Table(Generic[R]):
    """Where records of one type lie. `id` counts the records of all tables together: the order of writing."""

    name: str
    record: type[R]

    @cached_property
    def columns(self) -> dict[str, Column]:
        return {name: _column(name, field.annotation) for name, field in self.record.model_fields.items()}

    @property
    def definition(self) -> str:
        columns = ", ".join(f"{column.name} {column.sql}" for column in self.columns.values())
        return f"CREATE TABLE {self.name} (id INTEGER PRIMARY KEY, {columns})"

    @cached_property
    def insertion(self) -> str:
        return f"INSERT INTO {self.name} VALUES (?{', ?' * len(self.columns)})"

    def values(self, record: R) -> tuple[Any, ...]:
        """What is inserted behind the id."""
        return tuple(column.encode(getattr(record, column.name)) for column in self.columns.values())

    def rows(
        self, connection: sqlite3.Connection, clause: str = "", values: Sequence[Any] = ()
    ) -> Iterator[tuple[int, R]]:
        """The records with their ids, in the order of writing.

        Columns that this version does not know are left alone; those that an older one did not write take
        the defaults of their fields.
        """
        there = {row[1] for row in connection.execute(f"PRAGMA table_info({self.name})")}
        known = [column for column in self.columns.values() if column.name in there]
        names = ", ".join(column.name for column in known)
        for row in connection.execute(f"SELECT id, {names} FROM {self.name} {clause} ORDER BY id", values):
            fields = {column.name: column.decode(value) for column, value in zip(known, row[1:], strict=True)}
            yield row[0], self.record.model_validate(fields)


TABLES: dict[type, Table[Any]] = {
    record: Table(name, record)
    for name, record in (("signals", Signal), ("probes", Probe), ("incidents", Incident), ("post_mortems", PostMortem))
}
"""By the type of the record; the names are those of the fields of `Run`."""


def create_tables(connection: sqlite3.Connection, info: RunInfo) -> None:
    """An empty run."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("CREATE TABLE run (info TEXT NOT NULL, finished INTEGER NOT NULL)")
    connection.execute("INSERT INTO run VALUES (?, 0)", (info.model_dump_json(),))
    for table in TABLES.values():
        connection.execute(table.definition)
    connection.execute("COMMIT")


def _column(name: str, annotation: Any) -> Column:
    if annotation == tuple[float, ...]:
        return Column(name, "BLOB", _series_to_blob, _blob_to_series)
    if annotation in (float, float | None):
        return Column(name, "REAL", _number_to_sql, _as_is)
    if annotation in _PLAIN or annotation == str | None:
        return Column(name, _PLAIN.get(annotation, "TEXT"), _as_is, _as_is)
    adapter = TypeAdapter(annotation)
    return Column(
        name,
        "TEXT",
        lambda value: adapter.dump_json(value).decode(),
        lambda text: adapter.validate_json(text),
    )


def _as_is(value: Any) -> Any:
    return value


def _number_to_sql(value: float | None) -> float | str | None:
    return "NaN" if value is not None and math.isnan(value) else value


def _series_to_blob(values: Sequence[float]) -> bytes:
    # Numbers beyond float32 become infinite; unlike NumPy, `array` does so without a warning to be silenced.
    packed = array("f", values)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def _blob_to_series(blob: bytes) -> tuple[float, ...]:
    return tuple(np.frombuffer(blob, dtype=_FLOAT32).tolist())
