"""What watching a training costs: step time with a monitor against the same loop without one, in one run.

    python tests/benchmarks/bench_overhead.py [--steps 320] [--threads 2] [--clock wall|cpu] [--write]

Every variant trains a model of its own, from the same weights on the same batch. They take turns step by step, in
an order that changes, so that what else the machine does hits all alike.

    hooks           Monitor without a probe: signals at every step, the rules over them, and the store
    monitor         Monitor with a probe every hundred steps, each counted in as often as the default settings allow
    wandb watch     wandb.watch(model, log="gradients", log_freq=100), offline, with one log() a step
    item() a layer  a plain loop that logs the norm of every parameter's gradient with .item()
    bare, again     a second loop without anything: how far from 1 this machine takes two loops that are the same

A loop's regular work recurs within sixteen steps. The ratio is therefore the time of sixteen steps over that of the
same sixteen of the bare loops (the mean of both), and the median over all such windows. Rare and expensive steps,
probes and histograms, are left out of the windows and added in full: what they took beyond a usual step of their
loop, over the number of steps from one to the next. For probes that is the number at the default settings, in a loop
of its own: a hundred, or as many hundreds as it takes until they cost no more than `share` of the time.
The trimmed mean is that of single steps, without the tenth at either end, plus the same addition.

The capture of the network and the search for its leading directions, once before the first step, are not in the
ratios; they are given beside them.
"""

from __future__ import annotations

import argparse
import copy
import gc
import inspect
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dynstab
from dynstab.monitor.store import read_run

REPORT = Path(__file__).parents[2] / "reports" / "overhead.md"
TARGETS = {"hooks": 1.01, "monitor": 1.02}
DEFAULTS = {name: each.default for name, each in inspect.signature(dynstab.Monitor).parameters.items()}
WINDOW = 16
"""Steps within which everything recurs that is done regularly."""

HISTOGRAMS = 100
"""Steps from one of wandb's histograms to the next."""

After = Callable[[int, Tensor], None]


class Transformer(nn.Module):
    """12 pre-norm blocks of width 256 on 64 characters."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, 256)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(256, 4, 1024, batch_first=True, norm_first=True, dropout=0.1) for _ in range(12)
        )
        self.head = nn.Linear(256, 256)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.embedding(tokens)
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(hidden)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
        self.norm1, self.norm2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm2(self.second(F.relu(self.norm1(self.first(x))))))


class ResNet(nn.Module):
    """Nine residual blocks of width 32 at 32 x 32 pixels: ResNet-20 without its strides."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.blocks = nn.ModuleList(Block(32) for _ in range(9))
        self.head = nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.relu(self.stem(images))
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(hidden.mean(dim=(2, 3)))


@dataclass(frozen=True)
class Task:
    name: str
    model: Callable[[], nn.Module]
    batch: Callable[[], tuple[Tensor, Tensor]]
    times: int = 1
    """How many times as many steps: short ones scatter more."""


TASKS = (
    Task(
        "transformer, 12 blocks, 8 x 64 tokens",
        Transformer,
        lambda: (torch.randint(0, 256, (8, 64)), torch.randint(0, 256, (8, 64))),
    ),
    Task(
        "ResNet, 9 blocks, 32 x 3 x 32 x 32",
        ResNet,
        lambda: (torch.randn(32, 3, 32, 32), torch.randint(0, 10, (32,))),
        times=2,
    ),
)


@dataclass
class Loop:
    """One variant of the training loop; `after` is what it does after the optimizer's step."""

    model: nn.Module
    batch: tuple[Tensor, Tensor]
    optimizer: torch.optim.Optimizer
    after: After = lambda step, loss: None  # noqa: E731
    done: int = 0

    def step(self, clock: Callable[[], float]) -> float:
        """One training step, in seconds."""
        inputs, targets = self.batch
        begun = clock()
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(inputs).flatten(0, -2), targets.flatten())
        loss.backward()
        self.optimizer.step()
        self.after(self.done, loss)
        self.done += 1
        return clock() - begun


@contextmanager
def bare(loop: Loop, folder: Path) -> Iterator[None]:
    yield


@contextmanager
def hooks(loop: Loop, folder: Path) -> Iterator[None]:
    with dynstab.Monitor(loop.model, run=folder / "hooks.sqlite", optimizer=loop.optimizer) as monitor:
        loop.after = lambda step, loss: monitor.step(step, loss=loss)
        yield


@contextmanager
def monitor(loop: Loop, folder: Path) -> Iterator[None]:
    # The variants take turns, and a clock of the loop alone there is none: `probes_apart` does what `share` would do.
    with dynstab.Monitor(
        loop.model, probe=loop.batch, run=folder / "monitor.sqlite", optimizer=loop.optimizer, share=None
    ) as watching:
        loop.after = lambda step, loss: watching.step(step, loss=loss)
        yield


@contextmanager
def items(loop: Loop, folder: Path) -> Iterator[None]:
    with (folder / "norms.txt").open("w") as log:

        def after(step: int, loss: Tensor) -> None:
            norms = [p.grad.norm().item() for p in loop.model.parameters() if p.grad is not None]
            print(step, loss.item(), *norms, file=log)

        loop.after = after
        yield


@contextmanager
def wandb_watch(loop: Loop, folder: Path) -> Iterator[None]:
    import wandb

    settings = wandb.Settings(mode="offline", console="off", silent=True)
    with wandb.init(project="overhead", dir=str(folder), settings=settings) as run:
        run.watch(loop.model, log="gradients", log_freq=HISTOGRAMS)
        loop.after = lambda step, loss: run.log({"loss": loss.item()})
        yield


VARIANTS = {
    "bare": bare,
    "hooks": hooks,
    "monitor": monitor,
    "bare, again": bare,
    "wandb watch": wandb_watch,
    "item() a layer": items,
}


@dataclass(frozen=True)
class Ratio:
    """Of a variant's time over that of the bare loops, rare expensive steps counted in."""

    median: float
    low: float
    high: float
    trimmed: float


@dataclass
class Timings:
    """Variant -> seconds of every step; seconds that each took to begin; steps at which a probe was made, and at what
    cost by the monitor's own account."""

    steps: dict[str, list[float]]
    begin: dict[str, float]
    probes: dict[int, float]

    def ratio(self, name: str) -> Ratio:
        """Median over windows with its quartiles, and the trimmed mean over steps."""
        mine, bare = self.steps[name], self._bare(name)
        dear = self._dear(name)
        beyond = self.extra(name) / self._apart(name) / statistics.median(bare) if dear else 0.0
        kept = [i for i in range(len(mine)) if i not in dear]
        full = [kept[i : i + WINDOW] for i in range(0, len(kept) - WINDOW + 1, WINDOW)]
        windows = [sum(mine[i] for i in each) / sum(bare[i] for i in each) for each in full]
        single = sorted(mine[i] / bare[i] for i in kept)
        cut = len(single) // 10
        low, median, high = (each + beyond for each in statistics.quantiles(windows, n=4))
        return Ratio(median, low, high, statistics.fmean(single[cut : len(single) - cut]) + beyond)

    def extra(self, name: str) -> float:
        """Mean seconds of a rare step beyond a usual one of the same loop."""
        usual = statistics.median(self.steps[name])
        return statistics.fmean(self.steps[name][i] - usual for i in self._dear(name))

    def probes_apart(self) -> int:
        """Steps from one probe to the next at the default settings: multiples of `every`, until the cost is paid."""
        usual = statistics.median(self.steps["monitor"])
        paid = statistics.fmean(self.probes.values()) / DEFAULTS["share"] / usual
        return DEFAULTS["every"] * max(1, math.ceil(paid / DEFAULTS["every"]))

    def _bare(self, name: str) -> list[float]:
        first, second = self.steps["bare"], self.steps["bare, again"]
        return first if name == "bare, again" else [(a + b) / 2 for a, b in zip(first, second, strict=True)]

    def _apart(self, name: str) -> int:
        return self.probes_apart() if name == "monitor" else HISTOGRAMS

    def _dear(self, name: str) -> list[int]:
        if name == "monitor":
            return list(self.probes)
        last = len(self.steps[name])
        return list(range(HISTOGRAMS - 1, last, HISTOGRAMS)) if name == "wandb watch" else []


def measure(task: Task, steps: int, clock: Callable[[], float]) -> Timings:
    """All variants, step by step in turn."""
    torch.manual_seed(0)
    model, batch = task.model(), task.batch()
    found = Timings({name: [] for name in VARIANTS}, {}, {})
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        loops = {}
        for name, variant in VARIANTS.items():
            own = copy.deepcopy(model)
            loops[name] = Loop(own, batch, torch.optim.AdamW(own.parameters(), lr=1e-4))
            begun = clock()
            stack.enter_context(variant(loops[name], Path(folder)))
            found.begin[name] = clock() - begun
        for number in range(steps):
            order = list(loops.items())
            # Each variant comes first, last and after each other one in turn.
            for name, loop in order[number % len(order) :] + order[: number % len(order)]:
                found.steps[name].append(loop.step(clock))
        stack.close()
        found.probes = {probe.step: probe.cost for probe in read_run(Path(folder) / "monitor.sqlite").probes}
    return found


def table(task: Task, found: Timings) -> list[str]:
    step = statistics.median(found.steps["bare"])
    lines = [
        f"## {task.name}",
        "",
        f"Bare step {1e3 * step:.1f} ms, the median of {len(found.steps['bare'])}. A probe takes "
        f"{1e3 * found.extra('monitor'):.0f} ms, the mean of {len(found.probes)}, and comes every "
        f"{found.probes_apart()} steps at the default settings. "
        f"Capture and search took {found.begin['monitor']:.1f} s.",
        "",
        "| variant | median step / bare | quartiles | trimmed mean | target |",
        "|---|---:|---|---:|---|",
    ]
    for name in VARIANTS:
        if name != "bare":
            ratio = found.ratio(name)
            target = f"median at most {TARGETS[name]}" if name in TARGETS else ""
            quartiles = f"{ratio.low:.3f} to {ratio.high:.3f}"
            lines.append(f"| {name} | {ratio.median:.4f} | {quartiles} | {ratio.trimmed:.4f} | {target} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=320)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: on a busy machine, one thread")
    parser.add_argument("--write", action="store_true", help=f"write {REPORT.name}")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clock = time.perf_counter if arguments.clock == "wall" else time.process_time
    text = [
        "# What the monitor costs",
        "",
        f"`python tests/benchmarks/bench_overhead.py --steps {arguments.steps} --threads {arguments.threads} "
        f"--clock {arguments.clock} --write`, torch {torch.__version__}, float32, AdamW.",
        "",
        *(__doc__ or "").splitlines()[4:],
        "",
    ]
    for task in TASKS:
        found = table(task, measure(task, task.times * arguments.steps, clock))
        print("\n".join(found), file=sys.stderr, flush=True)
        text += found
        gc.collect()
    if arguments.write:
        REPORT.write_text("\n".join(text))


if __name__ == "__main__":
    main()
