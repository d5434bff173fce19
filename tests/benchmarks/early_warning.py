"""Does the monitor warn before a training run diverges? Detection, lead and false alarms over many small runs.

    python tests/benchmarks/early_warning.py                        # held-out seeds -> reports/early_warning.md
    python tests/benchmarks/early_warning.py --seeds 0-4 --out -    # some of those that the rules were tuned on

A run diverges at the first step at which its loss is not finite, or its smoothed loss (an exponential mean over ten
steps) exceeds twice the lowest value that it has had. It is detected if the monitor gave a warning or an error at an
earlier step; the lead is the number of steps between the first such flag and the divergence. A false alarm is a run
that does not diverge and has a warning or an error all the same.
"""

from __future__ import annotations

import argparse
import logging
import math
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from early_warning_runs import DIVERGING, HEALTHY, Training, build, loss_of
from scipy.stats import binomtest
from torch import Tensor, nn

import dynstab
from dynstab.core.flag import Severity
from dynstab.core.run import Incident

PROBE_EVERY = 10
SMOOTHING = 0.1
HELD_OUT = "200-204"
SHARP = ("edge-of-stability", "warmup-too-short")
"""Rules that need the sharpness, and so a loss function."""

SETTLED = 10
"""Steps before the smoothed loss counts."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One run.

    Attributes:
        diverged, warned: steps, None for never; a warning counts at the step at which it is told. by: its rule.
        cheap: the step of the first warning by a rule that needs no sharpness.
    """

    kind: str
    seed: int
    steps: int
    diverged: int | None
    warned: int | None
    by: str = ""
    cheap: int | None = None
    seconds: float = 0.0

    @property
    def lead(self) -> int | None:
        if self.diverged is None or self.warned is None or self.warned >= self.diverged:
            return None
        return self.diverged - self.warned

    @property
    def cheap_lead(self) -> int | None:
        if self.diverged is None or self.cheap is None or self.cheap >= self.diverged:
            return None
        return self.diverged - self.cheap


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


def train(training: Training, monitor: dynstab.Monitor) -> tuple[int, int | None]:
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
        monitor.step(step, loss=loss.detach())
        if divergence.seen(float(loss.detach())):
            return step + 1, step
    return training.steps, None


def outcome(job: tuple[Callable[[int], Training], int]) -> Outcome:
    kind, seed = job
    torch.set_num_threads(1)
    logging.getLogger("dynstab.monitor").setLevel(logging.ERROR + 1)
    training, started = build(kind, seed), time.perf_counter()
    if training.half:
        round_blocks(training.model)
    told: list[tuple[int, Incident]] = []
    with dynstab.Monitor(
        training.model,
        probe=next(training.batches),
        loss_fn=loss_of,
        optimizer=training.optimizer,
        every=PROBE_EVERY,
        sharpness_every=PROBE_EVERY,
        share=None,
        on_flag=lambda incident: told.append((monitor.state_dict()["step"], incident)),
    ) as monitor:
        steps, diverged = train(training, monitor)
    grave = [(step, incident) for step, incident in told if incident.flag.severity.rank >= Severity.WARNING.rank]
    first = min(grave, key=lambda pair: pair[0], default=None)
    return Outcome(
        kind=kind.__name__,
        seed=seed,
        steps=steps,
        diverged=diverged,
        warned=None if first is None else first[0],
        by="" if first is None else first[1].flag.name,
        cheap=min((step for step, incident in grave if incident.flag.name not in SHARP), default=None),
        seconds=round(time.perf_counter() - started, 2),
    )


def rates(outcomes: Sequence[Outcome]) -> list[str]:
    """The three figures, each with its 95 % interval (Wilson)."""
    diverging = [each for each in outcomes if each.diverged is not None]
    healthy = [each for each in outcomes if _is_healthy(each) and each.diverged is None]
    detected = [each.lead for each in diverging if each.lead is not None]
    alarms = sum(each.warned is not None for each in healthy)
    long = sum(lead >= 20 for lead in detected)
    cheap = [each.cheap_lead for each in diverging if each.cheap_lead is not None]
    return [
        "| | aim | measured | 95 % interval |",
        "|---|---|---|---|",
        f"| runs that diverge, detected before | 95 % | {_share(len(detected), len(diverging))} |",
        f"| the same, at least 20 steps before | | {_share(long, len(diverging))} |",
        f"| median lead of those detected, steps | 20 | {median(detected):g} ({min(detected)} to {max(detected)}) | |",
        f"| runs that do not diverge, with a false alarm | 5 % | {_share(alarms, len(healthy))} |",
        f"| diverging runs detected by rules that need no sharpness | | {_share(len(cheap), len(diverging))} |",
        f"| the same, at least 20 steps before | | {_share(sum(lead >= 20 for lead in cheap), len(diverging))} |",
    ]


def _share(count: int, total: int) -> str:
    interval = binomtest(count, total).proportion_ci(method="wilson")
    return f"{100 * count / total:.0f} % ({count} of {total}) | {100 * interval.low:.0f} to {100 * interval.high:.0f} %"


def _is_healthy(outcome: Outcome) -> bool:
    return outcome.kind in {kind.__name__ for kind in HEALTHY}


def by_kind(outcomes: Sequence[Outcome]) -> list[str]:
    rows = [
        "| kind of run | runs | diverged | detected | leads, steps | first warning by |",
        "|---|---|---|---|---|---|",
    ]
    for kind in DIVERGING:
        runs = [each for each in outcomes if each.kind == kind.__name__]
        diverged = [each for each in runs if each.diverged is not None]
        leads = [each.lead for each in diverged]
        shown = ", ".join("missed" if lead is None else str(lead) for lead in leads)
        first = ", ".join(
            f"{name} {n}" for name, n in Counter(each.by for each in diverged if each.lead is not None).most_common()
        )
        found = sum(lead is not None for lead in leads)
        rows.append(f"| {_what(kind)} | {len(runs)} | {len(diverged)} | {found} | {shown} | {first} |")
    rows += ["", "| kind of run | runs | diverged | false alarms | by |", "|---|---|---|---|---|"]
    for kind in HEALTHY:
        runs = [each for each in outcomes if each.kind == kind.__name__]
        alarms = [each for each in runs if each.warned is not None and each.diverged is None]
        first = ", ".join(f"{each.by} (step {each.warned})" for each in alarms)
        diverged = sum(each.diverged is not None for each in runs)
        rows.append(f"| {_what(kind)} | {len(runs)} | {diverged} | {len(alarms)} | {first} |")
    return rows


def _what(kind: Callable[[int], Training]) -> str:
    return (kind.__doc__ or "").strip().splitlines()[0].rstrip(".")


def unsettled(outcomes: Sequence[Outcome]) -> list[str]:
    """Runs that were made to diverge and did not count on neither side."""
    kinds = {kind.__name__ for kind in DIVERGING}
    spared = [each for each in outcomes if each.kind in kinds and each.diverged is None]
    if not spared:
        return []
    warned = sum(each.warned is not None for each in spared)
    return [
        "",
        f"Of the runs that were made to diverge, {len(spared)} came through, {warned} of them with a warning. They",
        "count on neither side: their weights were thrown about, but the loss did not double.",
    ]


def report(outcomes: Sequence[Outcome], command: str) -> str:
    seconds = sum(each.seconds for each in outcomes)
    return "\n".join(
        [
            "# Early warning",
            "",
            f"Written by `{command}` with dynstab {dynstab.__version__}, torch {torch.__version__}; "
            f"{len(outcomes)} runs, {seconds:.0f} s of training with the monitor on.",
            "",
            *(line.strip() for line in (__doc__ or "").split("\n\n")[2].splitlines()),
            "The rules were chosen on seeds 0 to 4 and 100 to 104; "
            "the figures are of seeds that played no part in that.",
            f"`dynstab.Monitor` watches every step and probes every {PROBE_EVERY}: the runs last a few hundred steps.",
            "",
            *rates(outcomes),
            *unsettled(outcomes),
            "",
            *by_kind(outcomes),
            "",
            "The models are small (45,000 to 67,000 weights), the data real: handwritten digits and the source of",
            "Python's library. Most of the early warnings rest on the sharpness, "
            "which is measured where the monitor is",
            "given a loss function; by default that is done far less often than here. Without it, jumps of gradients,",
            "updates and activations are left, which come late or not at all before a divergence, "
            "and need thirty records",
            "to know what is usual. A lead of hundreds of steps means that the run went on beyond its threshold for as",
            "long: the flag was right, but not urgent.",
            "",
        ]
    )


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
            print(
                f"{each.kind:24} seed {each.seed:4} {each.steps:4} steps, diverged {each.diverged}, "
                f"warned {each.warned} {each.by}",
                file=sys.stderr,
                flush=True,
            )
    written = report(
        outcomes,
        "python tests/benchmarks/early_warning.py" + ("" if options.seeds == HELD_OUT else f" --seeds {options.seeds}"),
    )
    if options.out == "-":
        print(written)
    else:
        Path(options.out).write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
