"""A training run as the monitor saw it: plain data, one record after another."""

from __future__ import annotations

from typing import Any

from dynstab.core.estimate import Estimate
from dynstab.core.flag import Flag
from dynstab.core.frozen import Frozen

RUN_SCHEMA_VERSION = "1.0"


class RunInfo(Frozen):
    """What does not change during a run.

    Attributes:
        places: names of the modules whose output is watched, in the order of the forward pass.
        groups: names of the groups of parameters (usually one a block), lower layers first.
        states, steps: of the probed network, by name; empty where nothing is probed.
        optimizer: its class name. every, sharpness_every: training steps between two probes, 0 for never.
    """

    schema_version: str = RUN_SCHEMA_VERSION
    dynstab: str
    torch: str
    created: str
    model: str
    parameters: int
    device: str
    dtype: str
    places: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    optimizer: str | None = None
    every: int = 0
    sharpness_every: int = 0


class Signal(Frozen):
    """The cheap signals of one training step.

    Places, and groups with their gradients, take turns: at each step a quarter of them is read, and the others keep
    the numbers that were read last, which are three steps old at most. A series of which nothing was taken at a step
    is empty. NaN is a number that was taken and is not finite; only of a place through which nothing has passed
    all three numbers are NaN, `nonfinite_fraction` too.

    Attributes:
        step: of training. seconds: since the run began. loss: None where `step` was given none.
        activation_rms, gradient_rms, nonfinite_fraction: per place of `RunInfo.places`; of large tensors, from
            lines of memory at even distances. The gradient of a place is read at one step in sixteen.
        gradient_norm, update_norm, weight_norm: per group of `RunInfo.groups`. Gradients are read whole. The update
            is the last change of the weights, of all groups at every step; it and the weights are estimated
            from a fixed sample of entries.
    """

    step: int
    seconds: float
    loss: float | None = None
    learning_rate: float | None = None
    activation_rms: tuple[float, ...] = ()
    gradient_rms: tuple[float, ...] = ()
    nonfinite_fraction: tuple[float, ...] = ()
    gradient_norm: tuple[float, ...] = ()
    update_norm: tuple[float, ...] = ()
    weight_norm: tuple[float, ...] = ()


class Probe(Frozen):
    """A quick measurement of the network on the probe batch, made to be compared with the probes before and after it.

    Unlike the numbers of a report those along the network carry no error of their own: a full one of the same
    network is what `dynstab.analyze` is for.

    Attributes:
        cost: seconds that it took.
        exponents: leading finite-time exponents, nat a step of the network, descending, mean over the inputs, from
            a frame of k directions kept since the last probe: each is a lower bound of the true one. `outcome` speaks
            of the first, whose residual it knows; those behind it follow more slowly, and may lie well below.
        step_gains: ln of the relative mean-field gain chi of every step (a squared gain, as in the report).
            gradient_flow: ln of the relative gradient gain from the last state to every state, for isotropic
            cotangents. Both are estimates from two random directions, the same ones at every probe: a change between
            probes is the network's, the level carries the scatter of so few.
        sharpness: lambda_max of the Hessian (of the preconditioned one for Adam). threshold: the optimiser's,
            in the same unit. preconditioned: whether the sharpness is.
        outcome: "converged" where the leading exponent is settled, or why it is not and what is missing.
    """

    step: int
    seconds: float
    cost: float
    exponents: tuple[float, ...] = ()
    step_gains: tuple[float, ...] = ()
    gradient_flow: tuple[float, ...] = ()
    sharpness: Estimate | None = None
    threshold: float | None = None
    preconditioned: bool = False
    outcome: str = "converged"


class Incident(Frozen):
    """A finding at a training step."""

    step: int
    flag: Flag


class PostMortem(Frozen):
    """What was written out when a run went wrong: the step, why, and the file of the full analysis."""

    step: int
    reason: str
    report: str | None = None


class Run(Frozen):
    """Everything that a store holds; printing it shows the page of `dynstab render RUN`.

    Records are in the order of their steps.

    Attributes:
        thinned_from: how many signals there are in the store, where `signals` are a part of them.
    """

    info: RunInfo
    signals: tuple[Signal, ...] = ()
    probes: tuple[Probe, ...] = ()
    incidents: tuple[Incident, ...] = ()
    post_mortems: tuple[PostMortem, ...] = ()
    finished: bool = False
    thinned_from: int | None = None

    def __rich__(self) -> Any:
        from dynstab.render.run.console import RunPage

        return RunPage(self)

    def __str__(self) -> str:
        from dynstab.render.run.console import run_text

        return run_text(self)

    def __repr__(self) -> str:
        return f"<Run {self.info.model}: {len(self.signals)} signals, {len(self.incidents)} incidents>"
