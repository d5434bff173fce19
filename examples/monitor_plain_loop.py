"""Watch a plain training loop: at which step, and in which block, does a training begin to go wrong?

    python examples/monitor_plain_loop.py

Two trainings of a residual network on scikit-learn's digits. The second one warms its learning rate up without
end. Both leave a run in `runs/`, for `dynstab watch runs/healthy.sqlite` and
`dynstab render runs/ramp.sqlite --html ramp.html`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dynstab
from dynstab.core.run import Incident


class Block(nn.Module):
    """A pre-norm residual block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), *(Block(64) for _ in range(8)), nn.Linear(64, 10))


def batches(steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    pixels, targets = load_digits(return_X_y=True)
    images, labels = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(targets)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        chosen = torch.randint(0, len(images), (256,), generator=generator)
        yield images[chosen], labels[chosen]


def loss_of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    images, labels = batch
    return cross_entropy(model(images), labels)


def train(name: str, *, ramp: float, steps: int) -> tuple[int, tuple[Incident, ...]]:
    """SGD whose learning rate grows by the factor `ramp` at every step; ends early where the monitor says so.

    Returns:
        The steps that were made, and what was found.
    """
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    probe = next(batches(1))
    step, loss = 0, torch.tensor(0.0)
    with dynstab.Monitor(
        model,
        probe=probe,
        every=10,
        sharpness_every=10,
        share=None,  # probes at every 10 steps whatever they cost: this network is so small that they dominate
        run=Path("runs") / f"{name}.sqlite",
        optimizer=optimizer,
        loss_fn=loss_of,
        stop_on="error",
    ) as monitor:
        for step, batch in enumerate(batches(steps)):
            optimizer.param_groups[0]["lr"] *= ramp
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()
            optimizer.step()
            monitor.step(step, loss=loss)
    print(f"{name}: {step + 1} steps, loss {float(loss.detach()):.3g}, recorded in {monitor.path}")
    for incident in monitor.incidents:
        print(f"  step {incident.step}: {incident.flag.name} at {incident.flag.where}: {incident.flag.message}")
    return step + 1, monitor.incidents


def main(steps: int = 200) -> dict[str, tuple[int, tuple[Incident, ...]]]:
    # What is found is printed at the end; without this line it is told at once.
    logging.getLogger("dynstab.monitor").setLevel(logging.CRITICAL)
    return {"healthy": train("healthy", ramp=1.0, steps=steps), "ramp": train("ramp", ramp=1.03, steps=steps)}


if __name__ == "__main__":
    main()
