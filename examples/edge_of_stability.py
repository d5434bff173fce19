"""Full-batch training sharpens the loss until the optimiser is about to lose it, and stays there.

Gradient descent at rate eta is stable while the sharpness, the largest eigenvalue of the Hessian, is below
2 / eta; Adam while that of the preconditioned Hessian is below 38 / eta. Trained on all of its data at once, a small
network on handwritten digits climbs to that threshold and hovers: eta * sharpness settles at 2, and at 38
(Cohen et al. 2021, 2022).

    python examples/edge_of_stability.py [--html edge.html]
"""

from __future__ import annotations

import argparse
from statistics import mean

import torch
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from dynstab.core.training_dynamics import TrainingDynamics
from dynstab.estimators.sharpness import SharpnessProbe

Records = dict[int, TrainingDynamics]


def digits(count: int) -> tuple[Tensor, Tensor]:
    """Centred images (count, 64), and one-hot labels (count, 10)."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels[:count], dtype=torch.float32) / 16
    return images - images.mean(0), nn.functional.one_hot(torch.tensor(labels[:count]), 10).float()


def train(name: str, *, steps: int, every: int, count: int = 200, width: int = 32) -> Records:
    """Full-batch training on the squared error, with the sharpness every so many steps."""
    images, labels = digits(count)
    torch.manual_seed(0)
    layers = [nn.Linear(64, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 10)]
    model = nn.Sequential(*layers)

    def loss(module: nn.Module) -> Tensor:
        return 0.5 * (module(images) - labels).square().sum(1).mean()

    optimizer: Optimizer = SGD(model.parameters(), lr=0.5) if name == "SGD" else Adam(model.parameters(), lr=0.005)
    probe, records = SharpnessProbe(model, loss, optimizer), {}
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()
        if step % every == 0:
            records[step] = probe.stability()
    return records


def settled(records: Records) -> float:
    """eta * sharpness, mean over the second half."""
    late = list(records.values())[len(records) // 2 :]
    return mean(found.learning_rate * (found.sharpness.value or 0.0) for found in late)


def show(name: str, records: Records, limit: float) -> None:
    table = Table("step", "loss", "eta x sharpness", "", title=f"{name}: threshold {limit:g}", title_justify="left")
    shown = list(records.items())
    for step, found in shown[:: max(1, len(shown) // 16)]:
        product = found.learning_rate * (found.sharpness.value or 0.0)
        bar = "█" * round(24 * product / limit) + ("" if product < limit else " ◂")
        table.add_row(str(step), f"{found.loss:.4f}", f"{product:.2f}", bar)
    console = Console()
    console.print(table)
    console.print(f"{name} settles at {settled(records):.2f}; theory says {limit:g}.\n")


def write_html(path: str, runs: dict[str, Records]) -> None:
    import plotly.graph_objects as go

    figure = go.Figure()
    for name, records in runs.items():
        figure.add_scatter(x=list(records), y=[found.ratio.value for found in records.values()], name=name)
    figure.add_hline(y=1.0, line_dash="dash", annotation_text="threshold")
    figure.update_layout(xaxis_title="training step", yaxis_title="sharpness / threshold of the optimiser")
    figure.write_html(path)


def main(*, steps: int = 2000, every: int = 25, html: str | None = None) -> dict[str, float]:
    limits = {"SGD": 2.0, "Adam": 38.0}
    runs = {name: train(name, steps=steps, every=every) for name in limits}
    for name, records in runs.items():
        show(name, records, limits[name])
    print(list(runs["SGD"].values())[-1])
    if html:
        write_html(html, runs)
    return {name: settled(records) for name, records in runs.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--html", help="write a chart of both runs")
    main(html=parser.parse_args().html)
