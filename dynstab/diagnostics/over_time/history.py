"""What the rules over time may look at: the last records of a training run."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from itertools import islice

from dynstab.core.flag import Severity
from dynstab.core.run import Incident, PostMortem, Probe, RunInfo, Signal
from dynstab.diagnostics.over_time.series import Series, safe_log

WINDOW = 128
"""Signals over which the usual values are taken."""

RECENT = 10
"""Losses whose mean stands for the loss now."""

FIRST = 3
"""Probes that stand for what the network was at first."""


@dataclass(kw_only=True)
class Episode:
    """A rule that has spoken and may not repeat itself: until when it saw its sign, and how grave that was."""

    severity: Severity
    record: int


class History:
    """A run up to now, in bounded memory.

    Args:
        info: what does not change during the run. window: signals that are kept.

    Attributes:
        signals, probes: the last ones. first_probes: those that stand for what it was at first.
        gradient, update, activation: windows of natural logarithms: per group the norm of the gradient, and that
            of the update over the weights' and over the learning rate; per place the RMS of the activations.
        loss: a window of losses. last_losses: the last ten. recent_loss: their mean. lowest_loss: the lowest of
            these means so far.
        episodes: open ones, by the rule's code.
    """

    def __init__(self, info: RunInfo, *, window: int = WINDOW) -> None:
        self.info = info
        self.signals: deque[Signal] = deque(maxlen=window)
        self.probes: deque[Probe] = deque(maxlen=window)
        self.first_probes: list[Probe] = []
        self.loss, self.gradient = Series(window), Series(window)
        self.update, self.activation = Series(window), Series(window)
        self.last_losses: list[float] = []
        self.recent_loss, self.lowest_loss = math.nan, math.inf
        self.latest: Signal | Probe | None = None
        self.counts = {Signal: 0, Probe: 0}
        self.episodes: dict[str, Episode] = {}

    def add(self, record: Signal | Probe | Incident | PostMortem) -> None:
        """Take the next record in; what says nothing of the run's course is passed over."""
        if isinstance(record, Signal):
            self._add_signal(record)
        elif isinstance(record, Probe):
            self.probes.append(record)
            if len(self.first_probes) < FIRST:
                self.first_probes.append(record)
        else:
            return
        self.latest = record
        self.counts[type(record)] += 1

    def _add_signal(self, signal: Signal) -> None:
        self.signals.append(signal)
        loss = math.nan if signal.loss is None else signal.loss
        self.loss.add([loss])
        self.last_losses.append(loss)
        del self.last_losses[:-RECENT]
        self._add_norms(signal)
        if self.loss.count >= RECENT:
            self.recent_loss = sum(self.last_losses) / RECENT
            if math.isfinite(self.recent_loss):
                self.lowest_loss = min(self.lowest_loss, self.recent_loss)

    def _add_norms(self, signal: Signal) -> None:
        """All logarithms are taken in one call: this is done at every step of the training."""
        # What was not taken at this step takes a row too, so that the newest row is always this step's.
        parts = (
            signal.gradient_norm or self.gradient.untaken,
            signal.update_norm or self.update.untaken,
            signal.weight_norm or self.update.untaken,
            signal.activation_rms,
        )
        logs = iter(safe_log([number for part in parts for number in part]).tolist())
        gradient, update, weight, activation = (list(islice(logs, len(part))) for part in parts)
        if gradient:
            self.gradient.add(gradient)
        rate = 1.0 if signal.learning_rate is None else signal.learning_rate
        if update and weight and rate > 0:
            known = math.log(rate)
            self.update.add([moved - size - known for moved, size in zip(update, weight, strict=True)])
        if activation:
            self.activation.add(activation)

    @property
    def taking_off(self) -> bool:
        """Whether the loss has fallen by a tenth within the last twenty records: then gradients grow by learning."""
        losses = self.loss.rows[-2 * RECENT :, 0]
        return len(losses) == 2 * RECENT and float(losses[RECENT:].mean()) < 0.9 * float(losses[:RECENT].mean())

    def group(self, index: int) -> str:
        """A group of parameters by name."""
        return self.info.groups[index] if index < len(self.info.groups) else f"group {index}"

    def place(self, index: int) -> str:
        """A watched module by name."""
        return self.info.places[index] if index < len(self.info.places) else f"place {index}"
