"""TensorBoard event files, by torch's own writer."""

from __future__ import annotations

import os

from torch.utils.tensorboard import SummaryWriter

from dynstab.core.run import Incident, PostMortem, RunInfo, Signal
from dynstab.monitor.scalars import PREFIX, headline, scalars
from dynstab.monitor.tables import Record


class TensorBoardSink:
    """Scalars and, for findings, texts.

    Args:
        folder: of the event files; by default the one that TensorBoard makes up under runs/.
        writer: an open `SummaryWriter` to write to in place of a new one; it stays open.
        every: signals come at every step; one in so many is written.
    """

    def __init__(
        self, folder: str | os.PathLike[str] | None = None, *, writer: SummaryWriter | None = None, every: int = 10
    ) -> None:
        self._folder = None if folder is None else os.fspath(folder)
        self._own = writer is None
        self._writer = writer
        self._every = every
        self._info: RunInfo | None = None

    def open(self, info: RunInfo) -> None:
        self._info = info
        self._writer = self._writer or SummaryWriter(self._folder)

    def write(self, record: Record) -> None:
        if self._writer is None or self._info is None:
            return
        if isinstance(record, Incident | PostMortem):
            self._writer.add_text(PREFIX + "findings", headline(record), record.step)
        if isinstance(record, Signal) and record.step % self._every:
            return
        for name, value in scalars(record, self._info).items():
            self._writer.add_scalar(name, value, record.step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.flush()
            if self._own:
                self._writer.close()


SINK = TensorBoardSink
