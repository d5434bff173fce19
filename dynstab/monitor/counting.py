"""The numbers of training steps, as a run counts them."""

from __future__ import annotations

import logging
from operator import index

from dynstab.core.errors import ConfigError

_LOG = logging.getLogger("dynstab.monitor")


MOST = 10**18
"""A store keeps numbers in 64 bits."""


class StepCount:
    """Steps that begin again from 0, as with the loader's next epoch, are counted on.

    Attributes:
        last: the number of the last step, -1 before the first one.
    """

    def __init__(self) -> None:
        self.last = -1
        self._offset = 0

    def on(self, step: int) -> int:
        """The number of the next step, by the one that the loop gives it.

        Raises:
            ConfigError: that is no whole number, or one that no store holds.
        """
        expected = "the number of the training step, a whole number"
        try:
            step = index(step)
        except (TypeError, ValueError, RuntimeError) as error:  # of NumPy and torch, too
            raise ConfigError(f"step {step!r}", expected=expected) from error
        if abs(step) >= MOST:
            raise ConfigError(f"step {step}", expected=f"{expected} below {MOST:.0e}")
        if step + self._offset <= self.last:
            self._offset = self.last + 1 - step
            _LOG.info("steps begin again at %d: counted on from %d", step, self.last + 1)
        self.last = step + self._offset
        return self.last
