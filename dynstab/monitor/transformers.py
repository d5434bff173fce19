"""The monitor as a callback of transformers' Trainer: `StabilityCallback(run="runs/a.sqlite").attach(trainer)`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dynstab.core.errors import ConfigError
from dynstab.core.report import write_whole
from dynstab.core.run import RunInfo, Signal
from dynstab.monitor.monitor import Monitor
from dynstab.monitor.scalars import PREFIX, scalars
from dynstab.monitor.stopping import StopTraining
from dynstab.monitor.tables import Record

FIRST = "first batch"
STATE_FILE = "dynstab_monitor.json"
"""In every checkpoint's folder."""


class StabilityCallback(TrainerCallback):
    """Watches the trainings of a transformers `Trainer` with a `dynstab.Monitor`.

        trainer = Trainer(model, ...)
        StabilityCallback(run="runs/a.sqlite").attach(trainer)
        trainer.train()

    What a probe finds, and the signals whenever the trainer logs, go through `trainer.log` to whatever the
    trainer reports to. A training that is resumed from a checkpoint goes on in the same store.

    Args:
        probe: the batch to measure, without labels. By default the first one that the training sees; None measures
            signals alone.
        sharpness: measure the sharpness of the trainer's own loss on the first batch as well.
        options: those of `dynstab.Monitor`: every, run, sinks, sharpness_every, on_flag, stop_on, ...

    Attributes:
        monitor: the present monitor, from the first batch on. path: of the latest run's store.
    """

    def __init__(self, *, probe: Any = FIRST, sharpness: bool = False, **options: Any) -> None:
        self.monitor: Monitor | None = None
        self.path: Path | None = None
        self._probe, self._with_sharpness, self._options = probe, sharpness, options
        self._trainer: Trainer | None = None
        self._loss: Tensor | None = None
        self._log = _Log()

    def attach(self, trainer: Trainer) -> Self:
        """Join a trainer: a callback in `callbacks=[...]` alone sees neither the batches nor the loss of a step.

        Training without it raises a ConfigError.
        """
        self._trainer = trainer
        inner = trainer.training_step

        def training_step(model: nn.Module, inputs: dict[str, Any], *rest: Any, **named: Any) -> Tensor:
            if self.monitor is None:
                self._open(trainer, model, inputs)
            try:
                loss = inner(model, inputs, *rest, **named)
            except BaseException:
                self._close(finished=False)
                raise
            self._loss = loss.detach() if self._loss is None else self._loss + loss.detach()
            return loss

        trainer.training_step = training_step  # type: ignore[method-assign]
        if self not in trainer.callback_handler.callbacks:
            trainer.add_callback(self)
        return self

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._trainer is None:
            raise ConfigError("a StabilityCallback without its trainer", remedy="callback.attach(trainer), then train")
        # Of a training that was interrupted between two batches.
        self._close(finished=False)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.monitor is None:
            return
        loss, self._loss = self._loss, None
        try:
            self.monitor.step(state.global_step, loss=loss)
        except StopTraining:
            control.should_training_stop = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        wanted = control.should_log
        numbers = self._log.taken(with_signal=wanted)
        if numbers and self._trainer is not None:
            self._trainer.log(numbers)
            # Whatever is logged ticks off the trainer's own wish to log its loss.
            control.should_log = wanted

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        file = _state_file(args, state)
        if self.monitor is not None and state.is_world_process_zero and file.parent.is_dir():
            write_whole(file, json.dumps(self.monitor.state_dict()))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._close(finished=True)

    def _open(self, trainer: Trainer, model: nn.Module, inputs: dict[str, Any]) -> None:
        read, labels = _split(inputs, trainer)
        optimizer: Any = trainer.optimizer
        monitor = Monitor(
            model,
            probe=read if isinstance(self._probe, str) and self._probe == FIRST else self._probe,
            # Accelerate's wrapper has no hooks of its own.
            optimizer=getattr(optimizer, "optimizer", optimizer),
            **self._options_with(_trainers_loss(trainer, labels)),
        )
        file = _state_file(trainer.args, trainer.state)
        if file.is_file():
            monitor.load_state_dict(json.loads(file.read_text(encoding="utf-8")))
        monitor.open()
        self.monitor, self.path = monitor, monitor.path

    def _options_with(self, loss: Any) -> dict[str, Any]:
        own: dict[str, Any] = {"sinks": (*self._options.get("sinks", ()), self._log)}
        return {**self._options, **own, **({"loss_fn": loss} if self._with_sharpness else {})}

    def _close(self, *, finished: bool) -> None:
        if self.monitor is not None:
            self.monitor.close(finished=finished)
            self.monitor, self._loss = None, None


class _Log:
    """A sink that keeps what is to be logged until the trainer has counted its step."""

    def __init__(self) -> None:
        self._info: RunInfo | None = None
        self._numbers: dict[str, float] = {}
        self._signal: Signal | None = None

    def open(self, info: RunInfo) -> None:
        self._info = info

    def write(self, record: Record) -> None:
        if isinstance(record, Signal):
            self._signal = record
        elif self._info is not None:
            # The steps of the network are many, and the trainer prints what it logs.
            found = scalars(record, self._info)
            self._numbers |= {
                name: number for name, number in found.items() if not name.startswith(f"{PREFIX}step_gain/")
            }

    def close(self) -> None:
        self._signal, self._numbers = None, {}

    def taken(self, *, with_signal: bool) -> dict[str, float]:
        """What has come together since the last call; the latest signal, if it is wanted."""
        numbers, self._numbers = self._numbers, {}
        if with_signal and self._signal is not None and self._info is not None:
            return scalars(self._signal, self._info) | numbers
        return numbers


def _split(inputs: dict[str, Any], trainer: Trainer) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the network reads and what only its loss reads: a network measured with labels would end in its loss."""
    labels = set(trainer.label_names or ("labels",))
    read = {name: value for name, value in inputs.items() if name not in labels}
    return read, {name: value for name, value in inputs.items() if name in labels}


def _trainers_loss(trainer: Trainer, labels: dict[str, Any]) -> Any:
    """The loss that the trainer computes, on those of the first batch's inputs that the monitor keeps."""

    def loss(model: nn.Module, batch: dict[str, Any]) -> Tensor:
        kept = next(len(value) for value in batch.values() if isinstance(value, Tensor))
        return trainer.compute_loss(model, {**batch, **{name: value[:kept] for name, value in labels.items()}})  # type: ignore[return-value]

    return loss


def _state_file(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(args.output_dir or "", f"checkpoint-{state.global_step}", STATE_FILE)
