"""Does the monitor warn before a training run diverges? Detection, lead, false alarms and price over many small runs.

    python tests/benchmarks/early_warning.py                        # held-out seeds -> reports/early_warning.md
    python tests/benchmarks/early_warning.py --seeds 0-4 --out -    # some of those that the rules were tuned on

A run diverges at the first step at which its loss is not finite, or its smoothed loss (an exponential mean over ten
steps) exceeds twice the lowest value that it has had. It is detected if the monitor gave a warning or an error at an
earlier step; the lead is the number of steps between the first such flag and the divergence. A false alarm is a run
that does not diverge and has a warning or an error all the same. The price is the time of the training loop with the
monitor over that without it.
"""

from __future__ import annotations

import argparse
import logging
import math
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from early_warning_report import as_json, report
from early_warning_runs import DIVERGING, HEALTHY, Batch, Training, build, loss_of
from torch import Tensor, nn

import dynstab
from dynstab.core.flag import Severity
from dynstab.core.run import Incident

SETTINGS: dict[str, dict[str, Any]] = {
    "dense": {"every": 10, "sharpness_every": 10, "share": None},
    "sparse": {"every": 30, "sharpness_every": 30, "share": None},
    "limited": {"every": 10, "sharpness_every": 10, "share": 0.2},
    "default": {},
}
"""Of the monitor: without regard to the price, with a third of it, for a fifth of the time, and as it is by itself."""

SMOOTHING = 0.1
HELD_OUT = "200-204"
SHARP = ("edge-of-stability", "warmup-too-short")
"""Rules that need the sharpness, and so a loss function."""

SETTLED = 10
"""Steps before the smoothed loss counts."""


@dataclass(frozen=True, kw_only=True)
class Warned:
    """What the monitor said of one run at one of the `SETTINGS`.

    Attributes:
        step: of the first warning, None for never; it counts at the step at which it is told. by: its rule.
        cheap: the step of the first warning by a rule that needs no sharpness.
        seconds: of the training loop. opening: seconds before its first step.
    """

    step: int | None
    by: str
    cheap: int | None
    seconds: float
    opening: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One run.

    Attributes:
        diverged: the step, None for never. seconds: of the training loop without a monitor.
        warned: by the name of the settings.
    """

    kind: str
    seed: int
    steps: int
    diverged: int | None
    seconds: float
    warned: dict[str, Warned] = field(default_factory=dict)

    def lead(self, settings: str = "dense", *, cheap: bool = False) -> int | None:
        """Steps from the first warning (by a rule that needs no sharpness) to the divergence; None for no warning."""
        found = self.warned[settings]
        step = found.cheap if cheap else found.step
        return None if self.diverged is None or step is None or step >= self.diverged else self.diverged - step


class Divergence:
    """Watches the loss for the definition above."""

    def __init__(self) -> None:
        self._smooth, self._lowest, self._count = math.nan, math.inf, 0

    def seen(self, loss: float) -> bool:
        self._smooth = loss if self._count == 0 else (1 - SMOOTHING) * self._smooth + SMOOTHING * loss
        self._count += 1
        if not math.isfinite(loss):
            return True
        if self._count <= SETTLED:
            return False
        self._lowest = min(self._lowest, self._smooth)
        return self._smooth > 2 * self._lowest


class _Rounded(torch.autograd.Function):
    """To float16 and back, forward and backward."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.half().float()

    @staticmethod
    def setup_context(ctx: object, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient.half().float()


def round_blocks(model: nn.Module) -> None:
    """Every block's output and the gradient there pass through float16."""
    for block in model.blocks:
        block.register_forward_hook(lambda module, inputs, output: _Rounded.apply(output))


def round_(tensors: Sequence[Tensor]) -> None:
    for tensor in tensors:
        tensor.copy_(tensor.half().float())


class Watcher(Protocol):
    """What the training loop tells of its steps."""

    def step(self, step: int, *, loss: Tensor) -> None: ...


class Nobody:
    """Watches nothing: the training as it is without a monitor."""

    def step(self, step: int, *, loss: Tensor) -> None:
        pass


def train(training: Training, watcher: Watcher) -> tuple[int, int | None]:
    """Steps made, and the step of the divergence."""
    divergence, optimizer = Divergence(), training.optimizer
    for step in range(training.steps):
        for group in optimizer.param_groups:
            group["lr"] = training.rate(step)
        loss = loss_of(training.model, next(training.batches))
        optimizer.zero_grad()
        loss.backward()
        if training.half:
            round_([p.grad for p in training.model.parameters() if p.grad is not None])
        optimizer.step()
        if training.half:
            round_([state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")])
        watcher.step(step, loss=loss.detach())
        if divergence.seen(float(loss.detach())):
            return step + 1, step
    return training.steps, None


def outcome(job: tuple[Callable[[int], Training], int], settings: Sequence[str] = tuple(SETTINGS)) -> Outcome:
    """One run, without a monitor and at each of the settings; none of them changes it."""
    kind, seed = job
    torch.set_num_threads(1)
    logging.getLogger("dynstab.monitor").setLevel(logging.ERROR + 1)
    training, _ = prepared(kind, seed)
    started = time.perf_counter()
    steps, diverged = train(training, Nobody())
    seconds = time.perf_counter() - started
    warned = {}
    for name in settings:
        warned[name], course = watched(*prepared(kind, seed), SETTINGS[name])
        if course != (steps, diverged):
            raise AssertionError(f"{kind.__name__}, seed {seed}: {course} with a monitor, {(steps, diverged)} without")
    return Outcome(
        kind=kind.__name__, seed=seed, steps=steps, diverged=diverged, seconds=round(seconds, 3), warned=warned
    )


def prepared(kind: Callable[[int], Training], seed: int) -> tuple[Training, Batch]:
    """A training and a batch to probe, on which it is not trained."""
    training = build(kind, seed)
    if training.half:
        round_blocks(training.model)
    return training, next(training.batches)


def watched(training: Training, probe: Batch, settings: dict[str, Any]) -> tuple[Warned, tuple[int, int | None]]:
    """What the monitor says of a training, and its course."""
    told: list[tuple[int, Incident]] = []
    begun = started = ended = time.perf_counter()
    with dynstab.Monitor(
        training.model,
        probe=probe,
        loss_fn=loss_of,
        optimizer=training.optimizer,
        on_flag=lambda incident: told.append((monitor.state_dict()["step"], incident)),
        **settings,
    ) as monitor:
        started = time.perf_counter()
        course = train(training, monitor)
        ended = time.perf_counter()
    grave = [(step, incident) for step, incident in told if incident.flag.severity.rank >= Severity.WARNING.rank]
    first = min(grave, key=lambda pair: pair[0], default=None)
    found = Warned(
        step=None if first is None else first[0],
        by="" if first is None else first[1].flag.name,
        cheap=min((step for step, incident in grave if incident.flag.name not in SHARP), default=None),
        seconds=round(ended - started, 3),
        opening=round(started - begun, 3),
    )
    return found, course


def seeds_of(text: str) -> list[int]:
    """ "0-4" or "1,7"."""
    if "-" in text:
        first, last = map(int, text.split("-"))
        return list(range(first, last + 1))
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", default=HELD_OUT, help="of every kind of run")
    parser.add_argument("--out", default=str(Path(__file__).parents[2] / "reports" / "early_warning.md"))
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    jobs = [(kind, seed) for kind in (*DIVERGING, *HEALTHY) for seed in seeds_of(options.seeds)]
    outcomes = []
    with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
        for each in pool.imap(outcome, jobs):
            outcomes.append(each)
            said = "; ".join(f"{name} {found.step} {found.by}" for name, found in each.warned.items())
            print(
                f"{each.kind:24} seed {each.seed:4} {each.steps:4} steps, diverged {each.diverged}, warned: {said}",
                file=sys.stderr,
                flush=True,
            )
    command = "python tests/benchmarks/early_warning.py"
    command += "" if options.seeds == HELD_OUT else f" --seeds {options.seeds}"
    definitions = (__doc__ or "").split("\n\n")[2].strip()
    written = report(outcomes, command, definitions)
    if options.out == "-":
        print(written)
    else:
        Path(options.out).write_text(written, encoding="utf-8")
        Path(options.out).with_suffix(".json").write_text(as_json(outcomes, command), encoding="utf-8")


if __name__ == "__main__":
    main()
