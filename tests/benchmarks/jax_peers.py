"""chaotax and lyapax on JAX, as a process that answers requests: JSON lines in, JSON lines out.

Runs in an environment of its own, `pip install jax chaotax lyapax`, without torch and without dynstab. The
systems are defined here, with numpy, for both sides.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Case:
    """A map of `size` numbers of which the leading `k` exponents are wanted; timed over `steps` steps.

    Attributes:
        trajectories: that go on together, by jax.vmap; 1 is none to go with.
    """

    size: int
    k: int
    steps: int
    transient: int
    trajectories: int = 1


CASES = {
    "tanh RNN, N = 200, full spectrum": Case(200, 200, 400, 300),
    "Lorenz 96, N = 40, full spectrum": Case(40, 40, 4000, 2000),
    "tanh RNN, N = 1000, leading 10": Case(1000, 10, 400, 300),
}
BATCHES = {
    "tanh RNN, N = 50, full spectrum, 64 trajectories": Case(50, 50, 200, 300, 64),
    "Lorenz 96, N = 40, full spectrum, 64 trajectories": Case(40, 40, 400, 2000, 64),
    "Lorenz 96, N = 40, leading 4, 64 trajectories": Case(40, 4, 400, 2000, 64),
}
ALL = CASES | BATCHES
FORCING, DT, GAIN = 8.0, 0.01, 2.0


def weight(case: Case) -> np.ndarray:
    """The matrix W of h <- W tanh(h)."""
    return np.random.default_rng(0).normal(size=(case.size, case.size)) * GAIN / case.size**0.5


def step_of(name: str, case: Case, module: Any) -> Any:
    """The map in terms of an array module: numpy or jax.numpy; of one state, or of the columns of a matrix."""
    if name.startswith("Lorenz"):
        return lambda x: rk4(lambda x: ring(x, partial(module.roll, axis=0)), x)
    matrix = module.asarray(weight(case))
    return lambda h: matrix @ module.tanh(h)


def ring(x: Any, roll: Any) -> Any:
    """Lorenz (1996): dx_i/dt = (x_{i+1} - x_{i-2}) x_{i-1} - x_i + F."""
    return (roll(x, -1) - roll(x, 2)) * roll(x, 1) - x + FORCING


def rk4(field: Any, x: Any) -> Any:
    """One Runge-Kutta step of length DT."""
    first = field(x)
    second = field(x + DT / 2 * first)
    third = field(x + DT / 2 * second)
    return x + DT / 6 * (first + 2 * second + 2 * third + field(x + DT * third))


def start(name: str, case: Case) -> np.ndarray:
    """A state on the attractor, the same for everyone; (trajectories, size) where they are many."""
    shape = case.size if case.trajectories == 1 else (case.size, case.trajectories)
    x, step = np.random.default_rng(1).normal(size=shape), step_of(name, case, np)
    for _ in range(case.transient):
        x = step(x)
    return np.ascontiguousarray(x.T)


def spectrum(peer: str, name: str, every: int, steps: int) -> Any:
    """A jitted function of the first state, or states, and the first frame -> exponents."""
    import chaotax  # pyright: ignore[reportMissingImports]
    import jax  # pyright: ignore[reportMissingImports]
    import lyapax  # pyright: ignore[reportMissingImports]

    case = ALL[name]
    step = step_of(name, case, jax.numpy)
    batched = partial(jax.vmap, in_axes=(0, None)) if case.trajectories > 1 else lambda function: function
    if peer == "lyapax":

        def exponents(x: Any, _: Any) -> Any:
            return lyapax.lyapunov_spectrum(step, x, 1.0, steps, k=case.k, renorm_every=every).exponents

        return jax.jit(batched(exponents))
    found = chaotax.lyapunov_spectrum(step, rollout_steps=steps, warmup_steps=0, discard_steps=0, num_exponents=case.k)

    def whole(x: Any, frame: Any) -> Any:
        # It takes sizes from arrays, which a trace would turn into unknowns.
        with jax.ensure_compile_time_eval():
            return found(x, frame)

    return jax.jit(batched(whole))


def serve() -> None:
    """Answer {"peer", "case", "every", "steps"} with {"seconds", "compile", "exponents"}.

    Exponents are descending; a list of each trajectory where they are many.
    """
    import jax  # pyright: ignore[reportMissingImports]

    jax.config.update("jax_enable_x64", True)
    held: dict[tuple[Any, ...], tuple[Any, Any, Any]] = {}
    print(json.dumps({"versions": _versions()}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        key = (asked["peer"], asked["case"], asked["every"], asked["steps"])
        compile_seconds = 0.0
        if key not in held:
            case = ALL[asked["case"]]
            x = jax.numpy.asarray(start(asked["case"], case))
            frame = jax.numpy.asarray(np.random.default_rng(2).normal(size=(case.k, case.size)))
            run = spectrum(*key)
            began = time.perf_counter()
            run(x, frame).block_until_ready()
            compile_seconds = time.perf_counter() - began
            held[key] = (run, x, frame)
        run, x, frame = held[key]
        began = time.perf_counter()
        found = run(x, frame).block_until_ready()
        seconds = time.perf_counter() - began
        exponents = np.sort(np.asarray(found))[..., ::-1].tolist()
        answer = {"seconds": seconds, "compile": max(0.0, compile_seconds - seconds), "exponents": exponents}
        print(json.dumps(answer), flush=True)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("jax", "chaotax", "lyapax")}


if __name__ == "__main__":
    serve()
