"""Lyapunov exponents against chaotax and lyapax on JAX, and against dense Jacobians: time a step, and error.

python tests/benchmarks/bench_exponents.py --peers build/peers

All processes are pinned to the same cores and take turns; medians over rounds, float64 throughout. Compilation
(and here the capture of a step) is measured by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

# Threads that spin while they wait take the cores from the other process.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from jax_peers import CASES, Case, ring, rk4, start, step_of, weight
from torch import Tensor

from dynstab.estimators.lyapunov import LyapunovSpectrum, orbit_spectrum
from dynstab.estimators.orbit import MapOrbit
from dynstab.estimators.qr import LONGEST_INTERVAL

HERE = Path(__file__).parent
PEERS = (("chaotax", 1), ("lyapax", 1), ("lyapax", 10))
OURS = (("dynstab", 1), ("dynstab", 10), ("dynstab", None), ("dynstab compiled", 1), ("dynstab compiled", None))
DENSE = "dense Jacobians"
DENSE_STEPS = 20
REFERENCE = 20  # times as many steps


@dataclass
class Timing:
    """Of one way to one spectrum: `ready` is compilation or capture in s, `each` ms a step in every round."""

    way: str
    every: int | None
    ready: float = 0.0
    each: list[float] = field(default_factory=list)
    exponents: list[float] = field(default_factory=list)
    error: float = float("nan")

    @property
    def median(self) -> float:
        return statistics.median(self.each)


class Peers:
    """The other process."""

    def __init__(self, environment: Path) -> None:
        # Its own interpreter: a link to a virtual environment's python is followed by nobody.
        command = [str(environment / "bin" / "python"), str(HERE / "jax_peers.py")]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
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
    if name.startswith("Lorenz"):
        return lambda x: rk4(lambda x: ring(x, torch.roll), x)
    matrix = torch.from_numpy(weight(case))
    return lambda h: matrix @ torch.tanh(h)


class Ours:
    """An orbit that is captured, and compiled, once; each run starts at the same state."""

    def __init__(self, name: str, case: Case, compiled: bool, every: int | None) -> None:
        self._case, self._compiled, self._longest = case, compiled, every or LONGEST_INTERVAL
        self._start = torch.from_numpy(start(name, case))
        self._orbit = MapOrbit(torch_step(name, case), self._start)

    def __call__(self, steps: int) -> LyapunovSpectrum:
        self._orbit.restart(self._start)
        return orbit_spectrum(
            self._orbit,
            steps=steps,
            k=self._case.k,
            discard=0,
            seed=0,
            memory_limit=2**30,
            compile=self._compiled,
            longest=self._longest,
        )


def dense(name: str, case: Case, steps: int) -> list[float]:
    """The textbook's way: the Jacobian of each step by autograd, times the frame, and a QR."""
    step, x = torch_step(name, case), torch.from_numpy(start(name, case))
    jacobian = torch.func.jacrev(step)
    frame = np.linalg.qr(np.random.default_rng(2).normal(size=(case.size, case.k)))[0]
    logs = np.zeros(case.k)
    for _ in range(steps):
        frame, r = np.linalg.qr(jacobian(x).numpy() @ frame)
        logs += np.log(np.abs(np.diag(r)))
        x = step(x)
    return (logs / steps).tolist()


def measure(name: str, peers: Peers, rounds: int) -> list[Timing]:
    """All ways to one spectrum, in turn within each round."""
    case = CASES[name]
    ours = {(way, every): Ours(name, case, "compiled" in way, every) for way, every in OURS}
    timings = {key: Timing(*key) for key in (*PEERS, *OURS, (DENSE, 1))}
    for round_ in range(rounds + 1):
        for (way, every), timing in timings.items():
            if (way, every) in ours:
                seconds, found = _timed(lambda run=ours[way, every]: run(case.steps).qr.tolist())
                steps = case.steps
            elif way == DENSE:
                steps = DENSE_STEPS
                seconds, found = _timed(lambda: dense(name, case, DENSE_STEPS))
            else:
                answer = peers.ask(way, name, every or 1, case.steps)
                seconds, found, steps = answer["seconds"], answer["exponents"], case.steps
                timing.ready = timing.ready or answer["compile"]
            if round_:
                timing.each.append(1e3 * seconds / steps)
                timing.exponents = found
            elif (way, every) in ours:
                timing.ready = seconds
    for timing in timings.values():
        if (timing.way, timing.every) in ours:
            timing.ready = max(0.0, timing.ready - 1e-3 * timing.median * case.steps)
    reference = np.array(ours["dynstab", 1](REFERENCE * case.steps).qr)
    for timing in timings.values():
        if timing.way != DENSE:
            timing.error = float(np.sqrt(np.mean((np.array(timing.exponents) - reference) ** 2)))
    return list(timings.values())


def _timed(run: Callable[[], list[float]]) -> tuple[float, list[float]]:
    began = time.perf_counter()
    found = run()
    return time.perf_counter() - began, found
