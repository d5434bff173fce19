"""Weights & Biases, online or offline as wandb itself is told (`WANDB_MODE=offline`)."""

from __future__ import annotations

from typing import Any

import wandb

from dynstab.core.flag import Severity
from dynstab.core.run import Incident, PostMortem, RunInfo, Signal
from dynstab.monitor.scalars import PREFIX, headline, scalars
from dynstab.monitor.tables import Record

_STEP = PREFIX + "step"
_LEVELS = {Severity.WARNING: "WARN", Severity.ERROR: "ERROR"}


class WandbSink:
    """Numbers in a run of their own x axis, so that they mix with whatever else is logged there; alerts for findings.

    Args:
        run: to log to. By default the one that is open, and where none is, a new one of project "dynstab",
            which ends with the monitor.
        every: signals come at every step; one in so many is logged.
    """

    def __init__(self, run: Any = None, *, every: int = 10) -> None:
        self._run = run
        self._own = False
        self._every = every
        self._info: RunInfo | None = None

    def open(self, info: RunInfo) -> None:
        self._info = info
        self._run = self._run or wandb.run
        if self._run is None:
            self._run, self._own = wandb.init(project="dynstab"), True
        self._run.define_metric(_STEP, hidden=True)
        self._run.define_metric(PREFIX + "*", step_metric=_STEP)

    def write(self, record: Record) -> None:
        if self._run is None or self._info is None:
            return
        if isinstance(record, Signal) and record.step % self._every:
            return
        if isinstance(record, Incident) and record.flag.severity in _LEVELS:
            self._run.alert(title=record.flag.name, text=headline(record), level=_LEVELS[record.flag.severity])
        if isinstance(record, PostMortem):
            self._run.alert(title="post-mortem", text=headline(record), level="ERROR")
        if numbers := scalars(record, self._info):
            self._run.log({_STEP: record.step, **numbers})

    def close(self) -> None:
        if self._run is not None and self._own:
            self._run.finish()


SINK = WandbSink
