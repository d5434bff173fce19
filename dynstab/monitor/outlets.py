"""Where records go: the store, the sinks, the console, the user's function. None of them can end the training."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Sequence

from dynstab.core.errors import StoreError
from dynstab.core.flag import Severity
from dynstab.core.run import Incident, PostMortem, RunInfo
from dynstab.monitor.scalars import headline
from dynstab.monitor.sinks import Sink, find_sink
from dynstab.monitor.sinks.logging import LoggingSink
from dynstab.monitor.stopping import StopTraining
from dynstab.monitor.store import RunStore
from dynstab.monitor.tables import Record

_LOG = logging.getLogger("dynstab.monitor")
_LEVELS = {Severity.INFO: logging.INFO, Severity.WARNING: logging.WARNING, Severity.ERROR: logging.ERROR}

BACKLOG = 10_000
"""Records that are kept while the store cannot be written; older ones are then lost."""

_PATIENCE = 30.0
"""Seconds until a store that could not be written is tried again."""


class PatientStore:
    """A store that may fail for a while: records wait, and are written in their order once it can be written again."""

    def __init__(self, store: RunStore) -> None:
        self._store, self.path = store, store.path
        self._waiting: deque[Record] = deque(maxlen=BACKLOG)
        self._retry = 0.0

    def write(self, record: Record) -> None:
        """Append a record, now or later."""
        self._waiting.append(record)
        if time.monotonic() >= self._retry:
            self._flush()

    def close(self, *, finished: bool) -> None:
        """Write what waits, note that the run came to its end if it did, and close the file."""
        self._flush()
        try:
            if finished and not self._waiting:
                self._store.finish()
        except StoreError as error:
            _LOG.warning("the end of the run could not be noted: %s", error)
        if self._waiting:
            _LOG.warning("%d records could not be written to %s", len(self._waiting), self.path)
        self._store.close()

    def _flush(self) -> None:
        try:
            while self._waiting:
                self._store.write(self._waiting[0])
                self._waiting.popleft()
        except StoreError as error:
            if not self._retry:
                _LOG.warning("records wait in memory, and training goes on: %s", error)
            self._retry = time.monotonic() + _PATIENCE
            return
        self._retry = 0.0


class Outlets:
    """Everything that takes records.

    Args:
        run: where the store goes, None for none. at: the step of the checkpoint from which the run is resumed.

    Attributes:
        path: of the store, None where there is none.

    Raises:
        StoreError: the store cannot be made. ConfigError: there is no such sink.
    """

    def __init__(
        self,
        info: RunInfo,
        *,
        run: str | os.PathLike[str] | None,
        sinks: Sequence[str | Sink],
        on_flag: Callable[[Incident], object] | None,
        at: int | None = None,
    ) -> None:
        found = [find_sink(sink) for sink in sinks]
        self._store: PatientStore | None = None
        if run is not None:
            store = RunStore.create(run, info) if at is None else RunStore.resume(run, info, step=at)
            self._store = PatientStore(store)
        self.path = None if self._store is None else self._store.path
        self._on_flag = on_flag
        # The logging sink says on the same logger what the console would be told.
        self._quiet = any(isinstance(sink, LoggingSink) for sink in found)
        self._sinks = [sink for sink in found if self._guarded(sink, lambda: sink.open(info))]  # noqa: B023

    def write(self, record: Record) -> None:
        """To all of them.

        Raises:
            StopTraining: the user's function raised it.
        """
        if self._store is not None:
            self._store.write(record)
        self._sinks = [sink for sink in self._sinks if self._guarded(sink, lambda: sink.write(record))]  # noqa: B023
        if not self._quiet:
            _tell(record)
        if isinstance(record, Incident) and self._on_flag is not None:
            self._call(record)

    def close(self, *, finished: bool) -> None:
        """Write everything out; a second time does nothing."""
        if self._store is not None:
            self._store.close(finished=finished)
            self._store = None
        for sink in self._sinks:
            self._guarded(sink, sink.close)
        self._sinks = []

    def _guarded(self, sink: Sink, action: Callable[[], None]) -> bool:
        """Do it; a sink that raises gets no more records."""
        try:
            action()
        except Exception:  # whatever a tracker's client raises, the training is worth more
            _LOG.exception("the sink %s failed and gets no more records; training goes on", type(sink).__name__)
            return False
        return True

    def _call(self, incident: Incident) -> None:
        try:
            assert self._on_flag is not None
            self._on_flag(incident)
        except StopTraining:
            raise
        except Exception:  # the user's function, of which nothing is known
            _LOG.exception("on_flag failed at step %d; training goes on", incident.step)


def _tell(record: Record) -> None:
    """The console hears of findings, through the logger "dynstab.monitor"."""
    if isinstance(record, Incident):
        _LOG.log(_LEVELS[record.flag.severity], "%s", headline(record))
    elif isinstance(record, PostMortem):
        _LOG.error("%s", headline(record))
