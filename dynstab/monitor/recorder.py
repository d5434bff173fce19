"""From measurements to records: in order, judged by the rules, written out."""

from __future__ import annotations

import logging
from collections import deque
from pathlib import Path

from dynstab.core.errors import ReportError
from dynstab.core.flag import Flag
from dynstab.core.run import Incident, PostMortem, Probe, RunInfo, Signal
from dynstab.diagnostics.over_time import History, watch
from dynstab.monitor.outlets import Outlets
from dynstab.monitor.pending import Pending
from dynstab.monitor.post_mortem import PostMortems
from dynstab.monitor.stopping import StopTraining

_LOG = logging.getLogger("dynstab.monitor")

_MOST_PENDING = 16
"""Signals that may be on their way from the device; the next one waits for the oldest."""

_TOGETHER = 2
"""Signals that are written and judged one after the other: a training step leaves the caches cold, and the second
costs a fraction of the first. With two, a process that is killed still loses no more than the last record."""


class Recorder:
    """The records of one run, on the one process that keeps them.

    Attributes:
        incidents: all so far.
    """

    def __init__(self, info: RunInfo, outlets: Outlets, post_mortems: PostMortems | None) -> None:
        self.incidents: list[Incident] = []
        self._outlets, self._post_mortems = outlets, post_mortems
        self._history: History | None = History(info)
        self._pending: deque[Pending] = deque()
        self._stop: StopTraining | None = None
        self._told, self._recording = 0, False

    @property
    def path(self) -> Path | None:
        """Of the store."""
        return self._outlets.path

    def signal(self, pending: Pending) -> None:
        """Take a signal in; it is written as soon as its numbers are there."""
        self._pending.append(pending)
        if len(self._pending) >= _TOGETHER:
            while self._pending and (self._pending[0].ready or len(self._pending) > _MOST_PENDING):
                self._record(self._pending.popleft().signal())

    def probe(self, probe: Probe) -> None:
        """Take a probe in, after the signals before it."""
        self.drain()
        self._record(probe)

    def asked(self) -> tuple[tuple[Incident, ...], StopTraining | None]:
        """The incidents since the last call, and whether the user's function wants to stop."""
        fresh = tuple(self.incidents[self._told :])
        self._told = len(self.incidents)
        return fresh, self._stop

    def close(self, *, finished: bool) -> None:
        """Write everything out; a second time does nothing."""
        self.drain()
        self._outlets.close(finished=finished)

    def drain(self) -> None:
        """Write the signals that are still on their way, and wait for them."""
        # A user's function that is told of a finding may ask for the monitor's state: what is left comes after it.
        if self._recording:
            return
        while self._pending:
            self._record(self._pending.popleft().signal())

    def _record(self, record: Signal | Probe) -> None:
        self._recording = True
        try:
            self._take_in(record)
        finally:
            self._recording = False

    def _take_in(self, record: Signal | Probe) -> None:
        self._write(record)
        flags = self._judged(record)
        for flag in flags:
            incident = Incident(step=record.step, flag=flag)
            self.incidents.append(incident)
            self._write(incident)
        if self._post_mortems is not None:
            try:
                written = self._post_mortems.add(record, flags)
            except ReportError as error:
                _LOG.warning("no post-mortem at step %d: %s", record.step, error)
                return
            if written is not None:
                self._write(written)

    def _judged(self, record: Signal | Probe) -> tuple[Flag, ...]:
        """What the rules find. One that fails ends the judging, not the training."""
        if self._history is None:
            return ()
        try:
            self._history.add(record)
            return watch(self._history)
        except Exception:  # whatever a rule stumbles over
            _LOG.exception("a rule failed at step %d; the run is recorded without being judged", record.step)
            self._history = None
            return ()

    def _write(self, record: Signal | Probe | Incident | PostMortem) -> None:
        try:
            self._outlets.write(record)
        except StopTraining as stop:
            self._stop = self._stop or stop
