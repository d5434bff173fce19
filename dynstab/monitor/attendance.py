"""Who takes part in the training: the model that is watched, and the optimizer that was given."""

from __future__ import annotations

import logging

_LOG = logging.getLogger("dynstab.monitor")

PATIENCE = 3
"""Steps in a row after which something is said."""


class Attendance:
    """What the signals say of it, once their numbers are there."""

    def __init__(self) -> None:
        self._missed = self._unexplained = 0
        self._told_of_model = self._told_of_optimizer = False

    @property
    def absent(self) -> bool:
        """Another model is trained: for some steps nothing has passed through this one, and no weight has moved."""
        return self._missed >= PATIENCE

    @property
    def optimizer_steps(self) -> bool:
        """Whether the optimizer made the last move of the weights, as far as is known."""
        return not self._unexplained

    def note(self, step: int, *, heard: bool | None, stepped: bool | None, moved: bool | None) -> None:
        """Take in a step.

        Args:
            heard: something passed through the model; None where no hook could hear it. stepped: the optimizer
                made a step; None where none was given. moved: a weight changed; None where that is not known.
        """
        if moved is None:
            return
        self._missed = self._missed + 1 if heard is False and not moved else 0
        if moved and stepped is not None:
            self._unexplained = 0 if stepped else self._unexplained + 1
        if self.absent and not self._told_of_model:
            self._told_of_model = True
            _LOG.warning(
                "the monitored model takes no part in the training at step %d: is another one being trained?", step
            )
        if self._unexplained >= PATIENCE and not self._told_of_optimizer:
            self._told_of_optimizer = True
            _LOG.warning(
                "the weights move at step %d without the optimizer that the monitor was given: learning rate and "
                "threshold are not known until it steps again; a training with another one needs a new Monitor",
                step,
            )
