"""What is measured every so many steps on a fixed batch: the network, and the sharpness of its loss."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dynstab.capture.capture import one_line, unwrap
from dynstab.capture.isolate import isolated
from dynstab.core.errors import ConfigError, DynstabError, InputError
from dynstab.core.estimate import Estimate
from dynstab.core.run import Probe
from dynstab.core.training_dynamics import TrainingDynamics
from dynstab.estimators.sharpness import SharpnessProbe
from dynstab.monitor.attendance import Attendance
from dynstab.monitor.distributed import Processes
from dynstab.monitor.network import ProbeBatch, ProbedNetwork, network_of
from dynstab.monitor.sweeps import Sweeps
from dynstab.systems.optimizers import limit_of

_LOG = logging.getLogger("dynstab.monitor")

Loss = Callable[[nn.Module, Any], Tensor]

_PRODUCTS = 24
"""Hessian-vector products of one measurement of the sharpness; a warm start needs a few."""


class Prober:
    """Measures one network on one batch, again and again, and leaves no trace in the training.

    Args:
        batch: see `ProbeBatch.of`. loss: (model, batch) -> scalar, for the sharpness.

    Attributes:
        states, steps: of the network, by name.

    Raises:
        InputError: the model rejects the batch. CaptureError, StateError: it cannot be probed.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Any,
        processes: Processes,
        *,
        k: int,
        inputs: int,
        loss: Loss | None = None,
        optimizer: Optimizer | None = None,
        seed: int = 0,
    ) -> None:
        self._model, self._root, self._processes = model, unwrap(model), processes
        self._inputs, self._seed = inputs, seed
        self._network, self.batch = self._captured(batch)
        self._sweeps = Sweeps(k, seed=seed)
        with _apart(self._root):
            network = self._network.at_present()
            if processes.first:
                self._sweeps.settle(network)
        self._told: set[str] = set()
        self._sharpness = None
        if loss is not None:
            optimizer = self._judging(optimizer)
            self._sharpness = SharpnessProbe(
                self._root, partial(self._on_the_batch, loss), optimizer, rtol=0.05, budget=_PRODUCTS, seed=seed
            )
        self._with_optimizer = optimizer is not None
        self.states, self.steps = self._network.states, self._network.steps

    def _captured(self, batch: Any) -> tuple[ProbedNetwork, ProbeBatch]:
        with _apart(self._root):
            return network_of(self._model, ProbeBatch.of(batch, self._inputs), self._processes, seed=self._seed)

    def _judging(self, optimizer: Optimizer | None) -> Optimizer | None:
        """The optimizer whose threshold stands beside the sharpness; None where none is known."""
        try:
            if optimizer is not None:
                limit_of(optimizer)
        except ConfigError as error:
            self._tell("the sharpness is that of the loss alone, beside no threshold", error.got)
            return None
        return optimizer

    def _on_the_batch(self, loss: Loss, module: nn.Module) -> Tensor:
        try:
            return loss(module, self.batch.batch)
        except Exception as error:  # of the user
            raise InputError(
                f"loss_fn raises {one_line(error)}", expected="a function of the model and the probe"
            ) from error

    def feed(self, batch: Any) -> None:
        """Probe with another batch from now on; one of other shapes means to capture the network again.

        Raises:
            InputError: the model rejects the batch, or has other steps on it.
        """
        held = ProbeBatch.of(batch, self._inputs)
        held = (held.alone or held) if len(self.batch.args) < len(held.args) else held
        if not self._network.feed(held):
            network, held = self._captured(batch)
            if (network.states, network.steps) != (self.states, self.steps):
                raise InputError(
                    f"a probe on which the network has {len(network.steps)} steps",
                    expected=f"a batch on which it has the {len(self.steps)} steps that the run began with",
                )
            self._network = network
        self.batch = held

    def measure(
        self, step: int, started: float, *, sharpness: bool, attendance: Attendance | None = None
    ) -> Probe | None:
        """The record of one probe; None on a process that only takes part. A failure is an outcome.

        Args:
            started: when the run began, on the clock of `time.perf_counter`. attendance: of model and optimizer
                in the training; None takes both to be there.
        """
        attendance = attendance or Attendance()
        begun = time.perf_counter()
        fields = self._read()
        if fields is None:
            return None
        if sharpness and self._sharpness is not None:
            fields |= self._sharp(self._sharpness, attendance)
        if attendance.absent:
            fields["outcome"] = f"{fields['outcome']}, but the model takes no part in the training"
        now = time.perf_counter()
        return Probe(step=step, seconds=now - started, cost=now - begun, **fields)

    def _read(self) -> dict[str, Any] | None:
        """What the sweeps find; their last act is to read numbers, so that an accelerator's time is counted too."""
        try:
            with _apart(self._root):
                network = self._network.at_present()
                return vars(self._sweeps.read(network)) if self._processes.first else None
        except Exception as error:  # an op that other weights make fail must not end the training
            outcome = str(error) if isinstance(error, DynstabError) else f"the probe failed: {one_line(error)}"
            self._tell("nothing is probed for now", outcome)
            return {"outcome": outcome}

    def _sharp(self, probe: SharpnessProbe, attendance: Attendance) -> dict[str, Any]:
        """Of the loss as it is trained: in the modes of the training, BatchNorm on the batch's own statistics.

        The same units drop out at every probe, so that a change is one of the weights.
        """
        try:
            with _apart(self._root), isolated(self._root, training=True):
                _seed(self._seed)
                if not self._with_optimizer:
                    return {"sharpness": probe.eigenvalues()[0]}
                found: TrainingDynamics = probe.stability()
        except Exception as error:  # the user's loss, and ops without a second derivative
            reason = str(error) or type(error).__name__
            self._tell("the sharpness is not measured for now", reason)
            return {"sharpness": Estimate.unmeasured(reason)}
        if attendance.optimizer_steps:
            threshold = found.threshold.value
            return {"sharpness": found.sharpness, "threshold": threshold, "preconditioned": found.preconditioned}
        if found.preconditioned:
            return {"sharpness": Estimate.unmeasured("the optimizer that preconditions it does not step any more")}
        return {"sharpness": found.sharpness}

    def _tell(self, what: str, why: str) -> None:
        """Once in a run."""
        if what not in self._told:
            self._told.add(what)
            _LOG.warning("%s: %s", what, why)


@contextmanager
def _apart(model: nn.Module) -> Iterator[None]:
    """Random states, the autocast mode and the gradients of the training are what they were."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices), torch.autocast(device.type, enabled=False):
        yield


def _seed(seed: int) -> None:
    """Of what drops out; within `_apart`. A CUDA that is not in use yet is left alone: its first seed is the user's."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


def servable_loss(loss: Loss | None, processes: Processes) -> Loss | None:
    """The loss of the sharpness.

    Raises:
        ConfigError: no process holds the whole model, whose Hessian would be needed.
    """
    if loss is not None and processes.sharded:
        raise ConfigError(
            "the sharpness of a model under fully_shard, which allows no second derivatives",
            remedy="leave loss_fn out, or monitor the sharpness of a smaller run",
        )
    return loss
