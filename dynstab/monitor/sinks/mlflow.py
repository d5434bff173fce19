"""MLflow: metrics of a run, in whatever store MLflow is set to (an SQLite file by default)."""

from __future__ import annotations

import re
import time

import mlflow
from mlflow.entities import Metric

from dynstab.core.run import Incident, PostMortem, RunInfo, Signal
from dynstab.monitor.scalars import PREFIX, headline, scalars
from dynstab.monitor.tables import Record

BATCH = 500
"""Numbers that are sent together: a call costs milliseconds however few it carries, and takes a thousand at most."""


class MlflowSink:
    """Metrics, and for findings tags of the run.

    Args:
        run_id: to log to. By default the active run, and where none is, a new one that ends with the monitor.
        every: signals come at every step; one in so many is logged.
    """

    def __init__(self, run_id: str | None = None, *, every: int = 10) -> None:
        self._run_id = run_id
        self._own = False
        self._every = every
        self._info: RunInfo | None = None
        self._waiting: list[Metric] = []

    def open(self, info: RunInfo) -> None:
        self._info = info
        self._client = mlflow.MlflowClient()
        if self._run_id is None:
            active = mlflow.active_run()
            self._own = active is None
            self._run_id = (active or mlflow.start_run()).info.run_id

    def write(self, record: Record) -> None:
        if self._info is None or self._run_id is None or (isinstance(record, Signal) and record.step % self._every):
            return
        now = round(1000 * time.time())
        self._waiting += [
            Metric(_allowed(name), value, now, record.step) for name, value in scalars(record, self._info).items()
        ]
        if isinstance(record, Incident | PostMortem):
            name = record.flag.name if isinstance(record, Incident) else "post-mortem"
            self._client.set_tag(self._run_id, PREFIX + name, headline(record))
            self._send()
        elif len(self._waiting) >= BATCH:
            self._send()

    def close(self) -> None:
        self._send()
        if self._own:
            mlflow.end_run()

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting) if self._run_id else 0, BATCH):
            self._client.log_batch(str(self._run_id), metrics=waiting[start : start + BATCH])


def _allowed(name: str) -> str:
    """MLflow's names hold letters, digits and _ - . / and blanks."""
    return re.sub(r"[^\w\-./ ]+", "_", name).strip()


SINK = MlflowSink
