"""Training runs made up for the tests of stores and renderers: one that settles, one that diverges."""

from __future__ import annotations

import math
from collections.abc import Iterator

from dynstab.core.estimate import Estimate, Label
from dynstab.core.flag import Flag, Severity
from dynstab.core.run import Incident, PostMortem, Probe, Run, RunInfo, Signal

BLOCKS = 6
BEGAN, SPIKED = 120, 160


def info(blocks: int = BLOCKS) -> RunInfo:
    names = tuple(f"blocks.{i}" for i in range(blocks))
    return RunInfo(
        dynstab="0.2.0", torch="2.13.0", created="2026-01-02T03:04:05+00:00", model="Transformer", parameters=123_456,
        device="cpu", dtype="float32", places=names, groups=("embed", *names, "head"),
        states=("embed", *names), steps=names, optimizer="AdamW", every=20, sharpness_every=40,
    )  # fmt: skip


def records(steps: int, *, diverges: bool, blocks: int = BLOCKS) -> Iterator[Signal | Probe | Incident | PostMortem]:
    """One training, record by record."""
    for step in range(steps):
        bad = max(0.0, step - BEGAN) / 40 if diverges else 0.0
        yield _signal(step, bad, blocks)
        if step % 20 == 0:
            yield _probe(step, bad, blocks)
        if diverges and step == BEGAN + 4:
            yield Incident(step=step, flag=_update_spike())
        if diverges and step == SPIKED:
            yield Incident(step=step, flag=_loss_spike())
            yield PostMortem(step=step, reason="the loss rose to 8 times its median", report="a-post-mortem-160.json")


def settled(steps: int = 200) -> Run:
    return _run(records(steps, diverges=False))


def diverged(steps: int = 200) -> Run:
    return _run(records(steps, diverges=True), finished=False)


def lost(steps: int = 200, *, at: int = 100) -> Run:
    """A run that settles, and of which nothing is finite from a step on: first one group, then all, as turns come."""
    found: list[Signal | Probe | Incident | PostMortem] = []
    for record in records(steps, diverges=False):
        if isinstance(record, Signal) and record.step >= at:
            known = at + 2 - record.step
            record = record.model_copy(
                update={
                    "loss": math.nan,
                    "activation_rms": (math.nan,) * BLOCKS,
                    "nonfinite_fraction": (1.0,) * BLOCKS,
                    "gradient_norm": (math.nan, *record.gradient_norm[1:]) if known > 0 else (math.nan,) * (BLOCKS + 2),
                    "update_norm": record.update_norm and (math.nan,) * (BLOCKS + 2),
                    "weight_norm": (math.nan,) * (BLOCKS + 2),
                }
            )
        elif isinstance(record, Probe) and record.step >= at:
            nothing = {name: (math.nan,) * len(getattr(record, name)) for name in ("exponents", "step_gains")}
            record = record.model_copy(
                update={
                    **nothing,
                    "gradient_flow": (math.nan,) * (BLOCKS + 1),
                    "sharpness": record.sharpness and record.sharpness.model_copy(update={"value": math.nan}),
                }
            )
        found.append(record)
    return _run(iter(found))


def _run(found: Iterator[Signal | Probe | Incident | PostMortem], *, finished: bool = True) -> Run:
    every = list(found)
    return Run(
        info=info(),
        signals=tuple(record for record in every if isinstance(record, Signal)),
        probes=tuple(record for record in every if isinstance(record, Probe)),
        incidents=tuple(record for record in every if isinstance(record, Incident)),
        post_mortems=tuple(record for record in every if isinstance(record, PostMortem)),
        finished=finished,
    )


def _signal(step: int, bad: float, blocks: int) -> Signal:
    loss = 0.4 + 2.0 * math.exp(-step / 50) + 0.05 * math.sin(step) + math.expm1(3 * bad) / 4
    groups = range(blocks + 2)
    return Signal(
        step=step, seconds=0.05 * step, loss=math.nan if bad > 1.9 else loss, learning_rate=1e-3 * min(1.0, step / 50),
        activation_rms=tuple(1.0 + 0.1 * i + bad * i for i in range(blocks)),
        gradient_rms=tuple(1e-3 * math.exp(bad * (blocks - i)) for i in range(blocks)),
        nonfinite_fraction=tuple(0.25 if bad > 1.9 else 0.0 for _ in range(blocks)),
        gradient_norm=tuple(0.1 * (1 + i) * math.exp(bad * (blocks - i)) for i in groups),
        update_norm=() if step % 2 else tuple(0.01 * math.exp(bad * (blocks - i) / 2) for i in groups),
        weight_norm=tuple(10.0 + i for i in groups),
    )  # fmt: skip


def _probe(step: int, bad: float, blocks: int) -> Probe:
    gains = tuple(0.02 * math.sin(i + step / 30) + 0.3 * bad for i in range(blocks))
    flow = tuple(sum(gains[i:]) for i in range(blocks + 1))
    sharpness = Estimate(value=10.0 * (1 + step / 40) * (1 + bad), error=0.4, label=Label.CERTIFIED, method="Lanczos")
    return Probe(
        step=step, seconds=0.05 * step, cost=0.031, exponents=(0.02 + 0.3 * bad, 0.01, -0.05), step_gains=gains,
        gradient_flow=flow, sharpness=sharpness if step % 40 == 0 else None, threshold=38.0, preconditioned=True,
    )  # fmt: skip


def _update_spike() -> Flag:
    return Flag(
        code="DS703", name="update-spike", severity=Severity.WARNING, where="embed",
        message="The update of embed is 6.1 times its median over the last 100 steps.",
        evidence={"ratio": 6.1, "median": 0.001}, advice=("Clip the gradient norm at 1.", "Lower Adam's beta2."),
    )  # fmt: skip


def _loss_spike() -> Flag:
    return Flag(
        code="DS706", name="loss-spike", severity=Severity.ERROR, where="loss",
        message="The loss is 8 times its running median.", evidence={"ratio": 8.0},
        advice=("Resume from the last checkpoint with a smaller learning rate.",),
    )  # fmt: skip
