"""The monitor as a Lightning callback: `Trainer(callbacks=[StabilityCallback(run="runs/a.sqlite")])`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from dynstab.monitor.monitor import Monitor
from dynstab.monitor.stopping import StopTraining

FIRST = "first batch"


class StabilityCallback(Callback):
    """Watches a Lightning training with a `dynstab.Monitor`. Its state lies in the checkpoint.

    A training that is resumed from a checkpoint, or by another `fit` of the same trainer, goes on in the same
    store. What `stop_on` or `on_flag` stops ends as Lightning ends it, after the present batch.

    Args:
        probe: the batch to measure. By default the first one that the training sees, as (inputs, targets) or
            inputs alone; None measures signals alone. The module's own `forward` is what is measured.
        options: those of `dynstab.Monitor`: every, run, sinks, loss_fn, sharpness_every, on_flag, stop_on, ...

    Attributes:
        monitor: the latest monitor, from the first batch on. path: of its run's store, from then on.
    """

    def __init__(self, *, probe: Any = FIRST, **options: Any) -> None:
        self.monitor: Monitor | None = None
        self.path: Path | None = None
        self._probe, self._options = probe, options
        self._restored: dict[str, Any] | None = None
        self._done = 0
        self._loss: torch.Tensor | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.monitor, self._loss = None, None
        if trainer.global_step == 0:
            self._restored = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self.monitor is None:
            self.monitor = self._opened(trainer, pl_module, batch)
            self.path = self.monitor.path
            self._done = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Empty for a batch that the module skips, and without a loss where it optimises by itself.
        self._add(outputs.get("loss") if isinstance(outputs, Mapping) else outputs)
        # Batches whose gradients only accumulate are no steps.
        if self.monitor is None or trainer.global_step == self._done:
            return
        self._done = trainer.global_step
        loss, self._loss = self._loss, None
        try:
            self.monitor.step(self._done - 1, loss=loss)
        except StopTraining:
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close(finished=True)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close(finished=False)

    def state_dict(self) -> dict[str, Any]:
        return self._restored or {} if self.monitor is None else self.monitor.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = state_dict or None

    def _opened(self, trainer: Trainer, module: LightningModule, batch: Any) -> Monitor:
        optimizers = trainer.optimizers
        monitor = Monitor(
            trainer.model or module,
            probe=batch if isinstance(self._probe, str) and self._probe == FIRST else self._probe,
            optimizer=optimizers[0] if len(optimizers) == 1 else None,
            **self._options,
        )
        if self._restored is not None:
            monitor.load_state_dict(self._restored)
        monitor.open()
        return monitor

    def _add(self, loss: Any) -> None:
        """Lightning has divided the loss of each batch by the number of batches whose gradients accumulate."""
        if isinstance(loss, torch.Tensor):
            self._loss = loss.detach() if self._loss is None else self._loss + loss.detach()

    def _close(self, *, finished: bool) -> None:
        if self.monitor is not None:
            self._restored = self.monitor.state_dict()
            self.monitor.close(finished=finished)
