"""A run as JSON lines: one object a record, for programs that read no SQLite."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from dynstab.core.frozen import Frozen
from dynstab.core.run import Incident, PostMortem, Probe, Signal
from dynstab.monitor.store import RunReader
from dynstab.monitor.tables import Record

KINDS: dict[type, str] = {Signal: "signal", Probe: "probe", Incident: "incident", PostMortem: "post_mortem"}


def json_lines(path: str | os.PathLike[str]) -> Iterator[str]:
    """The run's info, then its records in the order of writing, each with its kind under "record".

    NaN and infinities are the strings "NaN", "Infinity", "-Infinity", as in report.json.

    Raises:
        StoreError: as in `read_run`.
    """
    reader = RunReader(path)
    yield _line("info", reader.info)
    for record in reader.records():
        yield _line(KINDS[type(record)], _short(record))


def _line(kind: str, record: Frozen) -> str:
    """The record with its kind in front; pydantic alone knows how NaN is written."""
    return f'{{"record":"{kind}",{record.model_dump_json()[1:]}'


def _short(record: Record) -> Record:
    """Series came from float32: their digits beyond it mean nothing, and double the file."""
    series: dict[str, Any] = {
        name: tuple(float(text) for text in np.asarray(value, dtype=np.float32).astype(str))
        for name, value in record
        if isinstance(value, tuple)
    }
    return record.model_copy(update=series)
