"""The monitor of a training loop: what happens at a step, and in which order."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from weakref import WeakKeyDictionary, finalize, ref

from torch import Tensor, nn
from torch.optim import Optimizer

from dynstab.capture.capture import unwrap
from dynstab.core.errors import ConfigError
from dynstab.core.run import Incident
from dynstab.monitor.counting import StepCount
from dynstab.monitor.distributed import Processes
from dynstab.monitor.opening import make_prober, make_recorder
from dynstab.monitor.options import Options, checked_loss, checked_model, checked_optimizer, checked_state
from dynstab.monitor.pace import Pace
from dynstab.monitor.probe import Loss, Prober, servable_loss
from dynstab.monitor.recorder import Recorder
from dynstab.monitor.signals import Signals
from dynstab.monitor.sinks import Sink
from dynstab.monitor.stopping import Brake, StopTraining

_LOG = logging.getLogger("dynstab.monitor")

_watched: WeakKeyDictionary[nn.Module, ref[Monitor]] = WeakKeyDictionary()


class Monitor:
    """Watches a training, tells when it begins to go wrong, and changes nothing about it.

        with dynstab.Monitor(model, probe=batch, optimizer=optimizer, run="runs/a.sqlite") as monitor:
            for step, batch in enumerate(loader):
                ...
                loss.backward()
                optimizer.step()
                monitor.step(step, loss=loss)

    At every step hooks take the size of updates, and of activations and gradients in a quarter of the blocks, in
    turn; the device is never made to wait for them. At the first step and every `every` steps after it the network is
    linearised on a few fixed inputs: leading exponents, the gain of every step, the flow of the gradient, the
    sharpness. The rules over time (`dynstab rule`) read both; what they find goes to the store, the sinks, `on_flag`
    and the logger "dynstab.monitor". Signals are written and judged two at a time: a finding may come a step late.

    Probes see the network in eval mode, in float32 where it trains in less; the sharpness is that of the loss as it
    is trained, with the statistics of BatchNorm's batch and, at every probe, the same units dropped out. Inside
    compiled code there are no hooks, only probes and the groups of parameters. Gradients are as backpropagated: a
    loss scale is in them.

    Args:
        model: the module that is trained; behind DistributedDataParallel, `fully_shard` or torch.compile too.
        probe: a batch; its first `inputs` inputs are measured. A tensor, a tuple of positional or a dictionary of
            keyword arguments, or (inputs, targets) of which forward takes the first. None measures signals alone.
        every: steps between two probes. share: of the training time that probes may take on average; they
            come less often where they are dear. None for no limit.
        run: file of the run's store, None for none. Nothing is overwritten: `monitor.path` says what it became.
        sinks: names ("tensorboard", "wandb", "mlflow", "logging") or objects, see `dynstab.monitor.sinks`.
        optimizer: lets gradients be read before the loop clears them, and gives rate and threshold.
        loss_fn: (model, batch) -> scalar, for the sharpness, on all of the probe. sharpness_every: it is measured
            with the first probe that comes so many steps after the last time, by default 10 * every.
        on_flag: called with each `Incident`. It may raise StopTraining; whatever else it raises is logged.
        stop_on: "warning" or "error" stops the training at such a finding: `step` raises StopTraining, which the
            `with` block takes for its end. `should_stop` says it too, to loops that prefer to ask.
        k: leading exponents. seed: of the random directions.

    Raises:
        ConfigError: an option that cannot be served, a tensor-parallel model.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        probe: Any = None,
        every: int = 100,
        run: str | os.PathLike[str] | None = None,
        sinks: Sequence[str | Sink] = (),
        optimizer: Optimizer | None = None,
        loss_fn: Loss | None = None,
        sharpness_every: int | None = None,
        on_flag: Callable[[Incident], object] | None = None,
        stop_on: Literal["error", "warning"] | None = None,
        inputs: int = 2,
        k: int = 2,
        share: float | None = 0.005,
        seed: int = 0,
    ) -> None:
        self._model, self._processes = checked_model(model), Processes(model)
        self._options = Options(
            probe=probe,
            every=every,
            run=run,
            sinks=sinks,
            optimizer=checked_optimizer(optimizer),
            loss_fn=servable_loss(loss_fn, self._processes),
            sharpness_every=sharpness_every,
            on_flag=on_flag,
            inputs=inputs,
            k=k,
            share=share,
            seed=seed,
        )
        self._pace = Pace(self._options.steps_between_probes, share, self._processes.largest)
        self._sharpness = Pace(self._options.steps_between_sharpness, None, lambda seconds: seconds)
        self._brake = Brake(stop_on, self._processes)
        self._signals: Signals | None = None
        self._prober: Prober | None = None
        self._recorder: Recorder | None = None
        self._open, self._began, self._steps = False, 0.0, StepCount()
        self._resumed: dict[str, Any] | None = None
        self._release: finalize | None = None

    @property
    def path(self) -> Path | None:
        """The run's store, once the monitor was opened."""
        return None if self._recorder is None else self._recorder.path

    @property
    def incidents(self) -> tuple[Incident, ...]:
        """What was found so far, on the process that keeps the records."""
        return () if self._recorder is None else tuple(self._recorder.incidents)

    @property
    def should_stop(self) -> bool:
        """Whether the training is to stop, by `stop_on` or because `on_flag` asked for it."""
        return self._brake.pulled

    @property
    def probe(self) -> Any:
        """The batch that is measured. Assign another to measure that one; of the same shapes, it costs nothing."""
        return None if self._prober is None else self._prober.batch.batch

    @probe.setter
    def probe(self, batch: Any) -> None:
        if self._prober is None:
            raise ConfigError("a new probe for a monitor without one", remedy="begin the run with a probe")
        with self._unheard():
            self._prober.feed(batch)

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        stopped = isinstance(error, StopTraining)
        self.close(finished=error is None or stopped)
        return stopped

    def open(self) -> None:
        """Begin: put the hooks in place, capture the network, make the store.

        Raises:
            ConfigError: another monitor watches this model. InputError: the model rejects the probe.
            StoreError: the store cannot be made.
        """
        root = unwrap(self._model)
        if _watcher(root) is not None:
            raise ConfigError("a second monitor on one model", remedy="close the first one, or give it all sinks")
        processes = self._processes
        takes_part = processes.first or processes.sharded
        if takes_part:
            self._prober = make_prober(self._model, self._options, processes)
        try:
            if takes_part:
                self._signals = signals = Signals(self._model, processes, self._options.optimizer)
                # A monitor that is dropped without being closed leaves no hooks behind.
                self._release = finalize(self, signals.close)
                self._release.atexit = False
                if processes.first:
                    self._recorder = make_recorder(
                        self._model,
                        self._options,
                        processes,
                        signals=signals,
                        prober=self._prober,
                        resumed=self._resumed,
                    )
        except BaseException:
            self.close(finished=False)
            raise
        _watched[root] = ref(self)
        self._open = True
        self._began = time.perf_counter() - (self._resumed or {}).get("seconds", 0.0)

    def step(self, step: int, *, loss: Tensor | float | None = None) -> None:
        """Note one training step, after the optimizer's.

        Steps that begin again from 0, as with the loader's next epoch, are counted on.

        Raises:
            StopTraining: `stop_on` or `on_flag` asks for it. ConfigError: the monitor is not open, the step is no
                whole number, the loss no number.
        """
        if not self._open:
            raise ConfigError("a step of a monitor that is not open", remedy="use `with Monitor(...) as monitor:`")
        step, loss = self._steps.on(step), checked_loss(loss)
        self._listen(step, loss)
        if self._pace.due(step, self._seconds):
            self._probe(step)
        self._brake.pull(*(((), None) if self._recorder is None else self._recorder.asked()))

    def close(self, *, finished: bool = True) -> None:
        """Take the hooks away, and write out what is still on its way. A second time does nothing."""
        if self._open:
            self._resumed = self.state_dict()
        self._open = False
        root = unwrap(self._model)
        if _watcher(root) is self:
            del _watched[root]
        if self._release is not None:
            self._release()
        if self._recorder is not None:
            self._recorder.close(finished=finished)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that a resumed training goes on in the same store."""
        if not self._open and self._resumed is not None:
            return dict(self._resumed)
        if self._recorder is not None:
            # A store that is resumed at this step has to hold its record.
            self._recorder.drain()
        path = None if self.path is None else str(self.path)
        return {"run": path, "step": self._steps.last, "seconds": self._seconds if self._open else 0.0}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the checkpoint was taken. Before the monitor is opened.

        Raises:
            ConfigError: it is open, or the state is no monitor's.
        """
        if self._open:
            raise ConfigError("a state for a monitor that is open", remedy="load it before the training begins")
        self._resumed = checked_state(state)
        self._steps.last = self._resumed["step"]

    @property
    def _seconds(self) -> float:
        return time.perf_counter() - self._began

    def _listen(self, step: int, loss: Tensor | float | None) -> None:
        if self._signals is None:
            return
        try:
            pending = self._signals.take(step, self._seconds, loss)
        except Exception:  # parameters of a kind that was not thought of must not end the training
            _LOG.exception("no signals are taken from step %d on; training goes on", step)
            self._signals.close()
            self._signals = None
            return
        if self._recorder is not None:
            self._recorder.signal(pending)

    def _probe(self, step: int) -> None:
        """On every process that takes part; the others only agree when the next one is due."""
        cost = 0.0
        if self._prober is not None:
            sharp = self._sharpness.due(step, self._seconds)
            if self._recorder is not None:
                # Who takes part is known from the signals.
                self._recorder.drain()
            attendance = None if self._signals is None else self._signals.attendance
            with self._unheard():
                record = self._prober.measure(step, self._began, sharpness=sharp, attendance=attendance)
            if sharp:
                self._sharpness.done(step, self._seconds, 0.0)
            if record is not None and self._recorder is not None:
                cost = record.cost
                self._recorder.probe(record)
        self._pace.done(step, self._seconds, cost)

    def _unheard(self) -> AbstractContextManager[None]:
        """The hooks do not hear what happens within."""
        return nullcontext() if self._signals is None else self._signals.unheard()


def _watcher(root: nn.Module) -> Monitor | None:
    """The monitor that watches this model, if one does."""
    known = _watched.get(root)
    return None if known is None else known()
