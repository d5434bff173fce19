"""Lyapunov exponents against chaotax and lyapax on JAX, and against dense Jacobians: time a step, and error.

OPENBLAS_NUM_THREADS=1 python tests/benchmarks/bench_exponents.py --peers build/peers

All processes are pinned to the same cores and take turns; medians over rounds, float64 throughout. Compilation
(and here the capture of a step) is measured by itself. numpy's threads must not get in the way of torch's (its QR
is as fast with one); the peers' environment does not have that setting.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jax_peers import ALL, Case, ring, rk4, start, weight
from torch import Tensor

from dynstab.estimators.frame_walk import LONGEST_INTERVAL
from dynstab.estimators.orbit import MapOrbit
from dynstab.estimators.orbit_spectra import orbit_spectra

HERE = Path(__file__).parent
NOT_FOR_PEERS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
PEERS = (("chaotax", 1), ("lyapax", 1), ("lyapax", 10))
OURS = (
    ("dynstab", 1),
    ("dynstab", 10),
    ("dynstab", None),
    ("dynstab compiled", 1),
    ("dynstab compiled", 10),
    ("dynstab compiled", None),
)
DENSE = "dense Jacobians, torch.autograd.functional.jacobian"
DENSE_VMAP = "dense Jacobians, torch.func.jacrev"
ALONE = "dynstab, one trajectory after another"
ALONE_COMPILED = "dynstab compiled, one trajectory after another"
PRODUCT = "torch's product of W and the tangents alone"
DENSE_STEPS = 20
START, END = "<!-- exponents -->", "<!-- /exponents -->"  # of the README's table
REFERENCE = 20  # times as many steps


@dataclass
class Timing:
    """Of one way to one spectrum: `ready` is compilation or capture in s, `each` ms a step in every round."""

    way: str
    every: int | None
    ready: float = 0.0
    each: list[float] = field(default_factory=list)
    exponents: list[Any] = field(default_factory=list)
    error: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.each)


class Peers:
    """The other process."""

    def __init__(self, environment: Path) -> None:
        command = [str(environment / "bin" / "python"), str(HERE / "jax_peers.py")]
        settings = {name: value for name, value in os.environ.items() if name not in NOT_FOR_PEERS}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=settings
        )
        self.versions: dict[str, str] = self._answer()["versions"]

    def ask(self, peer: str, name: str, every: int, steps: int) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"peer": peer, "case": name, "every": every, "steps": steps}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self._process.communicate(timeout=60)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the peers' process ended: are jax, chaotax and lyapax in its environment?")
        return json.loads(line)


def torch_step(name: str, case: Case) -> Callable[[Tensor], Tensor]:
    """Of a state, or of (trajectories, size)."""
    if name.startswith("Lorenz"):
        return lambda x: rk4(lambda x: ring(x, lambda x, shift: torch.roll(x, shift, -1)), x)
    matrix = torch.from_numpy(weight(case))
    return (lambda h: torch.tanh(h) @ matrix.T) if case.trajectories > 1 else (lambda h: matrix @ torch.tanh(h))


class Ours:
    """Orbits that are captured, and compiled, once; each run goes on where the last one ended, with a new frame."""

    def __init__(self, name: str, case: Case, compiled: bool, every: int | None, *, alone: bool = False) -> None:
        self._case, self._compiled, self._longest = case, compiled, every or LONGEST_INTERVAL
        x = torch.from_numpy(start(name, case))
        if alone:
            case, x = replace(case, trajectories=1), x[0].clone()
        samples = case.trajectories if case.trajectories > 1 else None
        self._orbit = MapOrbit(torch_step(name, case), x, samples=samples)

    def __call__(self, steps: int) -> list[Any]:
        """The exponents, of each trajectory where they are many."""
        found = orbit_spectra(
            self._orbit,
            steps=steps,
            k=self._case.k,
            discard=0,
            seed=0,
            memory_limit=2**30,
            compile=self._compiled,
            longest=self._longest,
        )
        exponents = [each.qr.tolist() for each in found]
        return exponents if len(exponents) > 1 else exponents[0]


def dense(name: str, case: Case, steps: int, *, by_rows: bool) -> list[float]:
    """The textbook's way: the Jacobian of each step by autograd, times the frame, and a QR."""
    step, x = torch_step(name, case), torch.from_numpy(start(name, case))
    whole = torch.func.jacrev(step)
    frame = np.linalg.qr(np.random.default_rng(2).normal(size=(case.size, case.k)))[0]
    logs = np.zeros(case.k)
    for _ in range(steps):
        jacobian = torch.autograd.functional.jacobian(step, x) if by_rows else whole(x)
        assert isinstance(jacobian, Tensor)
        frame, r = np.linalg.qr((jacobian @ torch.from_numpy(frame)).numpy())
        logs += np.log(np.abs(np.diag(r)))
        x = step(x)
    return (logs / steps).tolist()


def product(case: Case, times: int) -> list[float]:
    """What no step of a network can be faster than."""
    matrix, tangents = torch.from_numpy(weight(case)), torch.ones(case.k, case.size, dtype=torch.float64)
    for _ in range(times):
        tangents = tangents @ matrix.T
        tangents = tangents / tangents.norm()
    return []


def measure(name: str, peers: Peers, rounds: int) -> list[Timing]:
    """All ways to one spectrum, in turn within each round."""
    case = ALL[name]
    ours = {(way, every): Ours(name, case, "compiled" in way, every) for way, every in OURS}
    runs: dict[tuple[str, int | None], tuple[int, Callable[[], list[Any]]]] = {
        key: (case.steps, lambda run=run: run(case.steps)) for key, run in ours.items()
    }
    if case.trajectories > 1:
        for way in (ALONE, ALONE_COMPILED):
            run = Ours(name, case, way == ALONE_COMPILED, None, alone=True)
            # One of them stands for all.
            runs[way, None] = (case.steps, lambda run=run: run(case.steps))
    else:
        for way in (DENSE, DENSE_VMAP):
            by_rows = way == DENSE
            runs[way, 1] = (DENSE_STEPS, lambda by_rows=by_rows: dense(name, case, DENSE_STEPS, by_rows=by_rows))
        if not name.startswith("Lorenz"):
            runs[PRODUCT, None] = (case.steps, lambda: product(case, case.steps))
    timings = {key: Timing(*key) for key in (*PEERS, *runs)}
    for round_ in range(rounds + 1):
        for (way, every), timing in timings.items():
            if (way, every) in runs:
                steps, run = runs[way, every]
                seconds, found = _timed(run)
            else:
                answer = peers.ask(way, name, every or 1, case.steps)
                seconds, found, steps = answer["seconds"], answer["exponents"], case.steps
                timing.ready = timing.ready or answer["compile"]
            if round_:
                times = case.trajectories if way in (ALONE, ALONE_COMPILED) else 1
                timing.each.append(1e3 * times * seconds / steps)
                continue
            # From the same first state for all; of many trajectories, the means.
            timing.exponents = np.mean(found, axis=0).tolist() if np.ndim(found) == 2 else found
            if (way, every) in ours:
                timing.ready = seconds
    for timing in timings.values():
        if (timing.way, timing.every) in ours:
            timing.ready = max(0.0, timing.ready - 1e-3 * timing.median * case.steps)
    if case.trajectories == 1:
        reference = np.array(ours["dynstab", 1](REFERENCE * case.steps))
        for timing in timings.values():
            if len(timing.exponents) == case.k and timing.way not in (DENSE, DENSE_VMAP):
                timing.error = float(np.sqrt(np.mean((np.array(timing.exponents) - reference) ** 2)))
    return list(timings.values())


def _timed(run: Callable[[], list[float]]) -> tuple[float, list[float]]:
    began = time.perf_counter()
    found = run()
    return time.perf_counter() - began, found


def _ratio(timings: list[Timing], way: str, every: int | None, ours: str, our_every: int | None) -> float:
    """How many times faster than another way; of rounds, the median of the ratios within each."""
    by = {(timing.way, timing.every): timing for timing in timings}
    return statistics.median(a / b for a, b in zip(by[way, every].each, by[ours, our_every].each, strict=True))


def table(timings: list[Timing]) -> list[str]:
    """One system, as a Markdown table."""
    lines = ["| | factorised every | ms a step | compile or capture, s | rms error |", "|---|---|---|---|---|"]
    for timing in timings:
        every = "never" if timing.way == PRODUCT else str(timing.every or "as needed")
        measured = timing.error is not None
        error, ready = (f"{timing.error:.1e}", f"{timing.ready:.1f}") if measured else ("-", "-")
        lines.append(f"| {timing.way} | {every} | {timing.median:.3g} | {ready} | {error} |")
    return lines


def targets(found: dict[str, list[Timing]]) -> list[str]:
    """What was to be reached, beside what was."""
    lines = ["| target | system | plain | compiled |", "|---|---|---|---|"]
    wanted = [
        ("as fast as chaotax, factorised at every step (1)", "chaotax", 1, 1),
        ("as fast as lyapax, factorised at every step (1)", "lyapax", 1, 1),
        ("as fast as lyapax, factorised every 10 steps (1)", "lyapax", 10, 10),
        ("twice as fast as chaotax, both with their defaults (2)", "chaotax", 1, None),
        ("twice as fast as lyapax, both with their defaults (2)", "lyapax", 1, None),
        ("ten times as fast as dense Jacobians by torch.autograd (10)", DENSE, 1, None),
        ("the same by torch.func.jacrev", DENSE_VMAP, 1, None),
        ("one trajectory after another", ALONE, None, None),
        ("one trajectory after another, compiled", ALONE_COMPILED, None, None),
    ]
    for words, way, every, ours in wanted:
        for name, timings in found.items():
            if any((timing.way, timing.every) == (way, every) for timing in timings):
                plain = _ratio(timings, way, every, "dynstab", ours)
                compiled = _ratio(timings, way, every, "dynstab compiled", ours)
                lines.append(f"| {words} | {name} | {plain:.2g} | {compiled:.2g} |")
    return lines


def short_table(found: dict[str, list[Timing]]) -> str:
    """For the README: each with its defaults, the fastest in bold."""
    columns = [
        ("dynstab", None),
        ("dynstab compiled", None),
        ("chaotax", 1),
        ("lyapax", 1),
        (DENSE, 1),
        (DENSE_VMAP, 1),
    ]
    heads = [
        "ms a step",
        "dynstab",
        "`compile=True`",
        "chaotax",
        "lyapax",
        "`autograd.functional.jacobian`",
        "`jacrev`",
    ]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name, timings in found.items():
        medians = {(timing.way, timing.every): timing.median for timing in timings}
        row = [medians.get(column) for column in columns]
        fastest = min(each for each in row if each is not None)
        shown = ["-" if each is None else f"{each:.0f}" if each > 99 else f"{each:.2g}" for each in row]
        cells = [f"**{text}**" if each == fastest else text for text, each in zip(shown, row, strict=True)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def page(found: dict[str, list[Timing]], setting: dict[str, Any]) -> str:
    """reports/exponents.md."""
    versions = ", ".join(f"{name} {version}" for name, version in setting["versions"].items())
    lines = [
        "# What a step of a Lyapunov spectrum costs",
        "",
        f"Written by `make bench-exponents`: torch {setting['torch']} beside {versions}, float64,",
        f"all pinned to the same {setting['cores']} core(s), medians of {setting['rounds']} interleaved rounds.",
        "Tangents and factorisations are counted, transients are not, and neither is compilation. The peers",
        "factorise at every step by default; dynstab where the columns would lose their independence, at most every",
        "100 steps, and at an interval that is asked for only as far as they bear it. Many columns, and those of",
        "compiled steps, are made independent by elimination, and by QR 20 times a run or every 100 steps: the",
        "product of the factors is that of QR at every step. The errors are those of this many steps, against a run",
        "20 times as long: where all agree they come from the orbit, not from the method.",
        "",
        "Times faster than the other, the target in brackets:",
        "",
        *targets(found),
    ]
    for name, timings in found.items():
        lines += ["", f"## {name}, {ALL[name].steps} steps", "", *table(timings)]
    lines += [
        "",
        "## What limits it",
        "",
        "- Networks: a step is a matrix product in float64, and how long torch's takes alone, without a tanh or a",
        "  factorisation, stands in the last line of each table: set it against a whole step of the peers. For all 200",
        "  exponents a dense Jacobian, W times a diagonal, costs one product as well, and jacrev makes it in one call.",
        "- Lorenz 96 without compilation: a hundred calls of torch on 1,600 numbers each.",
        "- Ten steps between factorisations lose the small exponents of the network with N = 200: see lyapax's error.",
        "  dynstab factorises as often as they need there, whatever is asked for.",
        "- With OMP_WAIT_POLICY=PASSIVE, which spares a busy machine, waking threads up makes steps of small networks",
        "  up to twice as slow.",
    ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and write reports/exponents.json, .md and the README's table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path, default=HERE.parents[1] / "build" / "peers", help="their environment")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cores", default="0,1", help="numbers of the cores that all are pinned to")
    parser.add_argument("--out", type=Path, default=HERE.parents[1] / "reports" / "exponents.json")
    options = parser.parse_args(arguments)
    cores = {int(number) for number in options.cores.split(",")}
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(len(cores))
    peers = Peers(options.peers)
    found = {name: measure(name, peers, options.rounds) for name in ALL}
    peers.close()
    setting = {
        "torch": torch.__version__,
        "versions": peers.versions,
        "cores": len(cores),
        "rounds": options.rounds,
        "dtype": "float64",
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    results = {name: [asdict(timing) for timing in timings] for name, timings in found.items()}
    options.out.write_text(json.dumps({"setting": setting, "results": results}, indent=1) + "\n")
    text = page(found, setting)
    options.out.with_suffix(".md").write_text(text)
    readme = options.out.parents[1] / "README.md"
    if readme.exists() and START in (whole := readme.read_text()):
        before, after = whole.split(START)[0], whole.split(END)[1]
        readme.write_text(f"{before}{START}\n{short_table(found)}\n{END}{after}")
    print(text)


if __name__ == "__main__":
    main()
