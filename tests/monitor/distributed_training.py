"""Trains a small model on two processes, with and without a monitor; writes what it finds as JSON.

torchrun --nproc-per-node 2 distributed_training.py RESULT.json
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module
from torch.nn.functional import mse_loss
from torch.nn.parallel import DistributedDataParallel

import dynstab
from dynstab.monitor.store import read_run

STEPS = 12


class Net(nn.Module):
    """Four residual blocks with dropout; the last two share their weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Dropout(0.1)) for _ in range(3))
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in (*self.blocks, self.blocks[2]):
            x = x + block(x)
        return self.head(x)


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(100 * step + dist.get_rank())
    return torch.randn(4, 6, generator=generator), torch.randn(4, 2, generator=generator)


def probe() -> Tensor:
    return torch.randn(2, 6, generator=torch.Generator().manual_seed(7))


def made(mode: str) -> nn.Module:
    torch.manual_seed(0)
    model = Net()
    if mode.startswith("fsdp"):
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16) if mode == "fsdp-bf16" else MixedPrecisionPolicy()
        for block in model.blocks:
            fully_shard(block, mp_policy=policy)
        return fully_shard(model, mp_policy=policy)
    return DistributedDataParallel(model)


def train(mode: str, run: Path | None, poisoned: bool = False, **options: object) -> tuple[nn.Module, int]:
    """The trained model and the steps that were made."""
    model, step = made(mode), 0
    watching = nullcontext()
    if run is not None:
        watching = dynstab.Monitor(model, probe=probe(), run=run, every=4, share=None, **options)  # type: ignore[arg-type]
    # The first probe comes before the optimizer is built: what it leaves behind would be trained.
    with watching as monitor:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        torch.manual_seed(1)
        for step in range(STEPS if not poisoned else 200):
            inputs, targets = batch(step)
            optimizer.zero_grad()
            loss = mse_loss(model(inputs), targets)
            if poisoned and step == 5 and dist.get_rank() == 0:
                loss = loss * float("inf")
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if monitor is not None:
                monitor.step(step, loss=loss)
    return model, step


def weights(model: nn.Module) -> list[Tensor]:
    whole = (p.full_tensor() if hasattr(p, "full_tensor") else p for p in model.parameters())
    return [tensor.detach().clone() for tensor in whole]


def changes_nothing(mode: str, folder: Path) -> dict[str, object]:
    bare = weights(train(mode, None)[0])
    model, _ = train(mode, folder / "run.sqlite")
    watched = weights(model)
    equal = all(torch.equal(a, b) for a, b in zip(bare, watched, strict=True))
    sharded = all(hasattr(p, "full_tensor") for p in model.parameters())
    dist.barrier()
    if dist.get_rank() != 0:
        return {}
    run = read_run(folder / "run.sqlite")
    return {
        "equal": equal,
        "sharded": sharded,
        "signals": len(run.signals),
        "probes": [probe.step for probe in run.probes],
        "outcomes": [probe.outcome for probe in run.probes],
        "first": {"exponents": run.probes[0].exponents, "gradient_flow": run.probes[0].gradient_flow},
        "gradient_norm": run.signals[3].gradient_norm,
        "weight_norm": run.signals[3].weight_norm,
        "groups": run.info.groups,
        "finished": run.finished,
    }


def stops_together(folder: Path) -> dict[str, object]:
    """Only the first process sees that the loss is not finite."""
    _, last = train("ddp", folder / "run.sqlite", poisoned=True, stop_on="error")
    steps = [torch.zeros(1) for _ in range(2)]
    dist.all_gather(steps, torch.tensor([float(last)]))
    return {"last": [int(step) for step in steps]}


def refuses_tensor_parallel() -> dict[str, object]:
    model = Net()
    parallelize_module(model, init_device_mesh("cpu", (2,)), {"first": ColwiseParallel()})
    try:
        dynstab.Monitor(model)
    except dynstab.DynstabError as error:
        return {"error": str(error)}
    return {"error": ""}


def main() -> None:
    result = Path(sys.argv[1])
    folder = result.with_suffix("")
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    found = {mode: changes_nothing(mode, folder / mode) for mode in ("ddp", "fsdp", "fsdp-bf16")}
    found["stop"] = stops_together(folder / "stop")
    found["tensor parallel"] = refuses_tensor_parallel()
    if dist.get_rank() == 0:
        result.write_text(json.dumps(found))
    dist.barrier()
    # Threads of gloo that are still there abort an interpreter that ends in the usual way, now and then.
    os._exit(0)


if __name__ == "__main__":
    main()
