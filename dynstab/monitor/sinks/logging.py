"""Plain logging, logger "dynstab.monitor": findings as warnings and errors, probes as INFO, signals as DEBUG."""

from __future__ import annotations

import logging

from dynstab.core.flag import Severity
from dynstab.core.run import Incident, PostMortem, Probe, RunInfo
from dynstab.monitor.scalars import PREFIX, headline, scalars
from dynstab.monitor.tables import Record

_LEVELS = {Severity.INFO: logging.INFO, Severity.WARNING: logging.WARNING, Severity.ERROR: logging.ERROR}


class LoggingSink:
    """Lines in a logger.

    Args:
        logger: "dynstab.monitor" by default.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger("dynstab.monitor")
        self._info: RunInfo | None = None

    def open(self, info: RunInfo) -> None:
        self._info = info
        self._logger.info("monitoring %s, %d parameters, on %s", info.model, info.parameters, info.device)

    def write(self, record: Record) -> None:
        if isinstance(record, Incident):
            self._logger.log(_LEVELS[record.flag.severity], "%s", headline(record))
        elif isinstance(record, PostMortem):
            self._logger.error("%s", headline(record))
        elif self._info is not None:
            self._numbers(record, logging.INFO if isinstance(record, Probe) else logging.DEBUG, self._info)

    def close(self) -> None:
        self._logger.info("monitoring ended")

    def _numbers(self, record: Record, level: int, info: RunInfo) -> None:
        if self._logger.isEnabledFor(level):
            numbers = scalars(record, info).items()
            shown = ", ".join(
                f"{name.removeprefix(PREFIX)} {value:.4g}" for name, value in numbers if "step_gain/" not in name
            )
            self._logger.log(level, "step %d: %s", record.step, shown)


SINK = LoggingSink
