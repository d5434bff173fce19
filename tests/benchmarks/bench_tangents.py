"""What k tangents cost: sweeps over the linear tape against one plain forward at batch B(1 + k).

A forward at that batch is the work of the inputs and k more columns each, the least that a
method pays which evaluates the network anew. vmap(jvp) and vmap(vjp) of torch.func, with the
attention that forward mode can go through, are timed in the same rounds. Run it alone on a
machine: `make bench`, or `python tests/benchmarks/bench_tangents.py --threads 4`.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from dynstab.capture.capture import capture_function
from dynstab.linear.evaluator import Evaluator
from dynstab.linear.tape import Tape

K = 16
TARGET = 1.25


class TransformerBlock(nn.Module):
    """Pre-norm, causal, with torch's fused attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.qkv(self.norm1(x)).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class ResidualBlock(nn.Module):
    """The basic block of He et al. (2016) for CIFAR."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(outside), nn.BatchNorm2d(outside)
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or inside != outside:
            self.skip = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(y + self.skip(x))


def transformer() -> nn.Module:
    return nn.Sequential(*[TransformerBlock(256, 8) for _ in range(12)])


def resnet56() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    inside = 16
    for width in (16, 32, 64):
        for block in range(9):
            layers.append(ResidualBlock(inside, width, 2 if block == 0 and width > 16 else 1))
            inside = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def mlp() -> nn.Module:
    return nn.Sequential(*[layer for _ in range(64) for layer in (nn.Linear(512, 512), nn.Tanh())])


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "transformer, 12 blocks, width 256, 64 tokens, batch 4": (transformer, (4, 64, 256)),
    "ResNet-56, 32 x 32, batch 4": (resnet56, (4, 3, 32, 32)),
    "MLP, 64 layers, width 512, batch 64": (mlp, (64, 512)),
}


@dataclass(frozen=True)
class Result:
    """Medians in seconds over interleaved rounds; `ratios` are to `forward`.

    `capture` is paid once for a network, `recording` (the primal run and its linearisation) once for an
    input, the others for every sweep of k tangents.
    """

    name: str
    capture: float
    recording: float
    forward: float
    push: float
    pull: float
    vmap_jvp: float
    vmap_vjp: float
    ratios: dict[str, float]
    routes: dict[str, int]
    relative_error: float


def measure(name: str, rounds: int, device: torch.device) -> Result:
    """One network, all methods in turn within each round."""
    make, shape = CASES[name]
    torch.manual_seed(0)
    module = make().eval().to(device)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    x, tangents = torch.randn(shape, device=device), torch.randn((K, *shape), device=device)
    large = torch.randn(((1 + K) * shape[0], *shape[1:]), device=device)

    capture, recorder = _timed(lambda: _Recorder(module, x), device)
    tape = recorder.record()
    cotangents = torch.randn((K, *tape.target_values[0].shape), device=device)
    methods: dict[str, Callable[[], Any]] = {
        "forward": lambda: _plain(module, large),
        "push": lambda: tape.push((tangents,))[0],
        "pull": lambda: tape.pull((cotangents,))[0],
        "vmap_jvp": lambda: _vmap_jvp(module, x, tangents),
        "vmap_vjp": lambda: _vmap_vjp(module, x, cotangents),
        "recording": lambda: recorder.record().routes,
    }
    results = {method: run() for method, run in methods.items()}  # the first call of each is not timed
    seconds: dict[str, list[float]] = {method: [] for method in methods}
    for _ in range(rounds):
        for method, run in methods.items():
            seconds[method].append(_timed(run, device)[0])
    median = {method: statistics.median(values) for method, values in seconds.items()}
    swept = ("push", "pull", "vmap_jvp", "vmap_vjp")
    error = float((results["push"] - results["vmap_jvp"]).norm() / results["vmap_jvp"].norm())
    return Result(
        name=name,
        capture=capture,
        ratios={method: median[method] / median["forward"] for method in swept},
        routes=tape.routes,
        relative_error=error,
        **median,
    )


class _Recorder:
    """A captured network, run and linearised as often as wanted."""

    def __init__(self, module: nn.Module, x: Tensor) -> None:
        self.graph = capture_function(module, (x,))
        self.evaluate = Evaluator(self.graph.module)

    def record(self) -> Tape:
        values = self.evaluate(self.graph.arguments())
        tape = Tape(self.evaluate.nodes, tuple(self.graph.input_nodes), self.graph.outputs, values)
        assert tape.routes, "linearises"
        return tape


@torch.no_grad()
def _plain(module: nn.Module, x: Tensor) -> Tensor:
    return module(x)


def _vmap_jvp(module: nn.Module, x: Tensor, tangents: Tensor) -> Tensor:
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        return torch.func.vmap(lambda t: torch.func.jvp(module, (x,), (t,))[1])(tangents)


def _vmap_vjp(module: nn.Module, x: Tensor, cotangents: Tensor) -> Tensor:
    with sdpa_kernel(SDPBackend.MATH):
        pull = torch.func.vjp(module, x)[1]
        return torch.func.vmap(pull)(cotangents)[0]


def _timed(run: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    result = run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start, result


def table(results: list[Result]) -> str:
    """The ratios as a Markdown table."""
    lines = [
        f"| k = {K} | forward, ms | push | vmap(jvp) | pull | vmap(vjp) | recording, ms | capture, s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.name} | {1e3 * r.forward:.0f} | **{r.ratios['push']:.2f}** | {r.ratios['vmap_jvp']:.2f} "
        f"| **{r.ratios['pull']:.2f}** | {r.ratios['vmap_vjp']:.2f} | {1e3 * r.recording:.0f} | {r.capture:.2f} |"
        for r in results
    ]
    return "\n".join(lines)


def page(results: list[Result], setting: dict[str, Any]) -> str:
    """reports/benchmarks.md."""
    how = f"{setting['device']}, {setting['threads']} threads, {setting['dtype']}"
    lines = [
        "# What k tangents cost",
        "",
        f"Written by `make bench`: torch {setting['torch']}, {how}, medians of {setting['rounds']} interleaved rounds.",
        f"A ratio is the time of k = {setting['k']} tangents (or cotangents) over that of one plain forward at batch",
        "B(1 + k), all in one run; below 1 is possible, since the tape does not evaluate the nonlinearities again.",
        "Recording (the primal run and its linearisation) is paid once a point, capture once a model.",
        "",
        table(results),
    ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> list[Result]:
    """Measure, print, and write reports/benchmarks.json and .md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "reports" / "benchmarks.json")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    results = [measure(name, options.rounds, torch.device(options.device)) for name in CASES]
    print(table(results))
    worst = max(max(r.ratios["push"], r.ratios["pull"]) for r in results)
    print(f"\nlargest ratio of a sweep to a forward at batch B(1 + k): {worst:.2f} (target {TARGET}, limit 1.0)")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    setting = {
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
        "device": options.device,
        "threads": options.threads,
        "rounds": options.rounds,
        "k": K,
        "dtype": "float32",
    }
    options.out.write_text(json.dumps({"setting": setting, "results": [asdict(r) for r in results]}, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(page(results, setting))
    return results


if __name__ == "__main__":
    main()
