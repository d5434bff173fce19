"""A run that is watched: what is known of it grows with its file, and takes no more memory than a page needs."""

from __future__ import annotations

import os
from itertools import pairwise

from dynstab.core.run import Incident, PostMortem, Probe, Run, Signal
from dynstab.monitor.store import RunReader
from dynstab.monitor.tables import Record

MOST = 4000
"""Signals that are kept, more or less."""


class Follower:
    """The present state of a run, in `run`.

    Args:
        path: of the run's file, which may be written while it is read.

    Raises:
        StoreError: as in `read_run`, at any time.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._reader = RunReader(path)
        self.run: Run = self._reader.whole(most=MOST)

    def update(self) -> tuple[Record, ...]:
        """Take in what was written since the last call; these records."""
        finished = self._reader.finished
        new = self._reader.new()
        fresh = tuple(each for each in new if isinstance(each, Signal))
        steps = [each.step for each in (*self.run.signals[-1:], *fresh)]
        signals, thinned_from = self.run.signals + fresh, self.run.thinned_from
        self.run = Run(
            info=self.run.info,
            signals=signals,
            probes=self.run.probes + tuple(each for each in new if isinstance(each, Probe)),
            incidents=self.run.incidents + tuple(each for each in new if isinstance(each, Incident)),
            post_mortems=self.run.post_mortems + tuple(each for each in new if isinstance(each, PostMortem)),
            finished=finished,
            thinned_from=None if thinned_from is None else thinned_from + len(fresh),
        )
        # A run that was resumed has lost what came after its checkpoint; thinned again from the file, the past
        # stays as dense as the present.
        if any(later <= earlier for earlier, later in pairwise(steps)) or len(signals) > 2 * MOST:
            self.run = self._reader.whole(most=MOST)
        return new
