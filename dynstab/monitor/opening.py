"""What a monitor is made of when its run begins: the prober, the recorder with its outlets."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from torch import nn

from dynstab.capture.capture import unwrap
from dynstab.core.errors import CaptureError, MemoryBudgetError, StateError
from dynstab.monitor.describe import run_info
from dynstab.monitor.distributed import Processes
from dynstab.monitor.options import Options
from dynstab.monitor.outlets import Outlets
from dynstab.monitor.post_mortem import PostMortems
from dynstab.monitor.probe import Prober
from dynstab.monitor.recorder import Recorder
from dynstab.monitor.signals import Signals

_LOG = logging.getLogger("dynstab.monitor")


def make_prober(model: nn.Module, options: Options, processes: Processes) -> Prober | None:
    """None where there is no probe, and, with a warning, where the network cannot be probed: the signals remain.

    Raises:
        InputError: the model rejects the probe.
    """
    if options.probe is None:
        return None
    try:
        return Prober(
            model,
            options.probe,
            processes,
            k=options.k,
            inputs=options.inputs,
            loss=options.loss_fn,
            optimizer=options.optimizer,
            seed=options.seed,
        )
    except (CaptureError, StateError, MemoryBudgetError) as error:
        _LOG.warning("nothing is probed, signals alone are taken: %s", error)
        return None


def make_recorder(
    model: nn.Module,
    options: Options,
    processes: Processes,
    *,
    signals: Signals,
    prober: Prober | None,
    resumed: dict[str, Any] | None,
) -> Recorder:
    """The recorder, its store begun or resumed.

    Args:
        resumed: the state of the checkpoint from which the training goes on: in its store, or where that is gone,
            as on another machine, in a new one.

    Raises:
        StoreError: the store cannot be made. ConfigError: there is no such sink.
    """
    info = run_info(
        unwrap(model),
        places=signals.places,
        groups=signals.groups,
        states=() if prober is None else prober.states,
        steps=() if prober is None else prober.steps,
        optimizer=options.optimizer,
        every=options.steps_between_probes,
        sharpness_every=options.steps_between_sharpness,
    )
    before = resumed or {}
    left = before.get("run")
    if left is not None and options.run is not None and not Path(left).is_file():
        _LOG.warning("the run's store %s is gone: a new one begins at %s", left, options.run)
        left = None
    outlets = Outlets(
        info,
        run=left or options.run,
        sinks=options.sinks,
        on_flag=options.on_flag,
        at=before["step"] if left else None,
    )
    post_mortems = None
    if outlets.path is not None:
        inputs = None if prober is None or processes.sharded else prober.batch.inputs
        post_mortems = PostMortems(model, outlets.path, inputs, signals.unheard, seed=options.seed)
    return Recorder(info, outlets, post_mortems)
