"""A Lightning training whose learning rate grows until it breaks, watched by a callback.

The report over time says at which step it began, and how long before the loss showed it.

    python examples/monitor_lightning.py
    dynstab watch runs/lightning.sqlite
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from dynstab.core.run import Run
from dynstab.monitor.lightning import StabilityCallback
from dynstab.monitor.store import read_run


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.down(torch.relu(self.up(self.norm(h))))


class Digits(lightning.LightningModule):
    """A residual network on 8 x 8 images, under a learning rate that doubles every `doubling` steps."""

    def __init__(self, *, rate: float, doubling: int, width: int = 64, depth: int = 6) -> None:
        super().__init__()
        self.rate, self.doubling = rate, doubling
        self.network = nn.Sequential(
            nn.Linear(64, width), *(Block(width) for _ in range(depth)), nn.LayerNorm(width), nn.Linear(width, 10)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return cross_entropy(self, batch)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=self.rate, momentum=0.9)
        ramp = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 2.0 ** (step / self.doubling))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": ramp, "interval": "step"}}


def cross_entropy(network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    images, labels = batch
    return nn.functional.cross_entropy(network(images), labels, label_smoothing=0.1)


def main(*, steps: int = 400, doubling: int = 35, run: str = "runs/lightning.sqlite", every: int = 20) -> Run:
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images, dtype=torch.float32) / 8 - 1, torch.tensor(labels))
    stability = StabilityCallback(
        run=run, every=every, share=None, inputs=32, loss_fn=cross_entropy, sharpness_every=every
    )
    trainer = lightning.Trainer(
        max_steps=steps, accelerator="cpu", callbacks=[stability], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Digits(rate=0.01, doubling=doubling), DataLoader(data, batch_size=256, shuffle=True))
    path = Path(run) if stability.path is None else stability.path
    print(f"\ndynstab render {path} --html run.html   # the report over time\n")
    found = read_run(path)
    print(found)
    return found


if __name__ == "__main__":
    main()
