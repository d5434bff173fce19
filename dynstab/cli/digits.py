"""The two networks of `dynstab demo`, trained on scikit-learn's handwritten digits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dynstab.core.errors import LoadError

CLASSES = 10
PIXELS = 64


@dataclass(frozen=True, kw_only=True)
class Digits:
    """8 x 8 images as rows of 64 numbers in [-1, 1], with their labels."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def read_digits(*, tests: int = 360, seed: int = 0) -> Digits:
    """The 1,797 digits in a fixed random order, the first `tests` of them held out.

    Raises:
        LoadError: scikit-learn, which ships them, is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise LoadError(
            "the demo trains on the digits that scikit-learn ships, and it is not installed",
            remedy="pip install 'dynstab[demo]'",
        ) from error
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    x = torch.tensor(images, dtype=torch.float32)[order] / 8 - 1
    y = torch.tensor(labels, dtype=torch.int64)[order]
    return Digits(train_images=x[tests:], train_labels=y[tests:], test_images=x[:tests], test_labels=y[:tests])


def residual_network(*, layers: int = 6, width: int = 32) -> nn.Sequential:
    """A pre-norm transformer over the 8 rows of a digit: identity paths carry the gradient."""
    block = nn.TransformerEncoderLayer(
        width, nhead=4, dim_feedforward=2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    return nn.Sequential(
        nn.Unflatten(1, (8, 8)),
        nn.Linear(8, width),
        nn.TransformerEncoder(block, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False),
        nn.Flatten(),
        nn.Linear(8 * width, CLASSES),
    )


def chaotic_network(*, layers: int = 40, gain: float = 2.5) -> nn.Sequential:
    """A plain tanh network with weights of variance gain^2 / N.

    Above a gain of 1 nearby inputs are torn apart layer by layer, and gradients grow as
    fast on their way back (Poole et al. 2016; Schoenholz et al. 2017).
    """
    hidden: list[nn.Module] = []
    for _ in range(layers):
        linear = nn.Linear(PIXELS, PIXELS)
        nn.init.normal_(linear.weight, std=gain / PIXELS**0.5)
        nn.init.zeros_(linear.bias)
        hidden += [linear, nn.Tanh()]
    return nn.Sequential(*hidden, nn.Linear(PIXELS, CLASSES))


def train(network: nn.Module, digits: Digits, *, epochs: int, batch: int = 128, rate: float = 1e-3) -> float:
    """Train by Adam, gradients clipped to norm 1; the accuracy on the held-out digits."""
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    network.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(digits.train_labels)).split(batch):
            loss = nn.functional.cross_entropy(network(digits.train_images[rows]), digits.train_labels[rows])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
    network.eval()
    with torch.no_grad():
        return (network(digits.test_images).argmax(1) == digits.test_labels).float().mean().item()


def train_and_save(folder: Path, *, epochs: int, seed: int = 0) -> list[tuple[Path, float]]:
    """Train both networks and save each as a .pt file, beside `digits.pt` with eight inputs.

    Returns:
        The files of the stable and of the exploding network, with their accuracies.
    """
    digits = read_digits()
    torch.save(digits.test_images[:8].clone(), folder / "digits.pt")
    saved = []
    for name, make in (("stable", residual_network), ("exploding", chaotic_network)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = make()
            accuracy = train(network, digits, epochs=epochs)
        torch.save(network, folder / f"{name}.pt")
        saved.append((folder / f"{name}.pt", accuracy))
    return saved
