"""Small training runs that diverge, and some that do not: the material of `early_warning.py`."""

from __future__ import annotations

import argparse
import difflib
import inspect
import math
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

Batch = tuple[Tensor, Tensor]
Schedule = Callable[[int], float]


@dataclass(frozen=True, kw_only=True)
class Training:
    """One run: what is trained, on what, how, and for how many steps.

    Attributes:
        half: activations, gradients and Adam's state are rounded to float16 at every step, without loss scaling.
    """

    model: nn.Module
    optimizer: Optimizer
    batches: Iterator[Batch]
    rate: Schedule
    steps: int
    half: bool = False


class Residual(nn.Module):
    """x + W relu(V x), without normalisation unless asked for."""

    def __init__(self, width: int, *, gain: float = 1.0, norm: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.up, self.down = nn.Linear(width, width), nn.Linear(width, width)
        with torch.no_grad():
            self.up.weight.mul_(gain)
            self.down.weight.mul_(gain)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.relu(self.up(self.norm(x))))


class Rectified(nn.Sequential):
    """A plain layer, He-initialised times a gain."""

    def __init__(self, width: int, *, gain: float = 1.0) -> None:
        linear = nn.Linear(width, width)
        nn.init.normal_(linear.weight, std=gain * math.sqrt(2 / width))
        nn.init.zeros_(linear.bias)
        super().__init__(linear, nn.ReLU())


class Regularised(nn.Module):
    """x + dropout(relu(BatchNorm(W x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear, self.norm, self.dropout = nn.Linear(width, width), nn.BatchNorm1d(width), nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.dropout(F.relu(self.norm(self.linear(x))))


class Convolution(nn.Sequential):
    """3 x 3, BatchNorm, ReLU."""

    def __init__(self, channels: int, filters: int, *, stride: int = 1) -> None:
        convolution = nn.Conv2d(channels, filters, 3, stride=stride, padding=1, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(filters), nn.ReLU())


class Attention(nn.Module):
    """A pre-norm transformer block, causal."""

    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.norm_1, self.norm_2 = heads, nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        split = self.qkv(self.norm_1(x)).view(batch, tokens, 3, self.heads, width // self.heads)
        mixed = F.scaled_dot_product_attention(*split.permute(2, 0, 3, 1, 4), is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.down(F.gelu(self.up(self.norm_2(x))))


class Classifier(nn.Module):
    def __init__(self, blocks: list[nn.Module], width: int = 64) -> None:
        super().__init__()
        self.blocks, self.head = nn.ModuleList(blocks), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Characters(nn.Module):
    """A language model on characters."""

    def __init__(self, vocabulary: int, *, width: int = 32, layers: int = 3, tokens: int = 32) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(vocabulary, width), nn.Embedding(tokens, width)
        self.blocks = nn.ModuleList(Attention(width) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(self, characters: Tensor) -> Tensor:
        x = self.token(characters) + self.position(torch.arange(characters.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


@cache
def text() -> tuple[Tensor, int]:
    """Source of Python's own library as numbers, and how many characters there are."""
    source = "".join(inspect.getsource(module) for module in (textwrap, argparse, difflib))
    numbers = {character: i for i, character in enumerate(sorted(set(source)))}
    return torch.tensor([numbers[character] for character in source]), len(numbers)


@cache
def digits() -> Batch:
    data = load_digits()
    return torch.tensor(data.data, dtype=torch.float32) / 8 - 1, torch.tensor(data.target)


def digit_batches(seed: int, size: int) -> Iterator[Batch]:
    generator, (images, labels) = torch.Generator().manual_seed(seed), digits()
    while True:
        rows = torch.randint(len(labels), (size,), generator=generator)
        yield images[rows], labels[rows]


def text_batches(seed: int, size: int, tokens: int = 32) -> Iterator[Batch]:
    generator, (numbers, _) = torch.Generator().manual_seed(seed), text()
    while True:
        starts = torch.randint(len(numbers) - tokens - 1, (size,), generator=generator)
        rows = numbers[starts[:, None] + torch.arange(tokens + 1)]
        yield rows[:, :-1], rows[:, 1:]


def loss_of(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy with smoothed labels: its floor keeps the loss of a trained network from doubling by chance."""
    output = model(batch[0])
    return F.cross_entropy(output.flatten(0, -2), batch[1].flatten(), label_smoothing=0.1)


def cosine(rate: float, *, warmup: int, total: int) -> Schedule:
    """A linear warm-up, then half a cosine down to a tenth."""
    return lambda step: rate * min(1, (step + 1) / warmup) * (0.55 + 0.45 * math.cos(math.pi * min(1, step / total)))


def ramp(rate: float, *, hold: int, fold: float) -> Schedule:
    """A short warm-up, a rate that is held, and from then on e times as high every `fold` steps."""
    return lambda step: rate * min(1, (step + 1) / 50) * math.exp(max(0, step - hold) / fold)


def warm_up(rate: float, steps: int) -> Schedule:
    return lambda step: rate * min(1, (step + 1) / steps)


def _mlp(layers: int = 6, *, gain: float = 1.0, norm: bool = False) -> nn.Module:
    return Classifier([Residual(64, gain=gain, norm=norm) for _ in range(layers)])


def _plain(layers: int = 12, *, gain: float = 1.0) -> nn.Module:
    return Classifier([Rectified(64, gain=gain) for _ in range(layers)])


def _regularised(layers: int = 12) -> nn.Module:
    return Classifier([Regularised(64) for _ in range(layers)])


def _convolutions() -> nn.Module:
    """Images of 8 x 8, 4 x 4, and the mean over them."""
    image, mean = nn.Unflatten(1, (1, 8, 8)), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    layers = [Convolution(1, 24), Convolution(24, 32), Convolution(32, 64, stride=2), Convolution(64, 64)]
    return Classifier([image, *layers, mean])


def _sgd(model: nn.Module, momentum: float = 0.9) -> Optimizer:
    return SGD(model.parameters(), lr=1e-3, momentum=momentum)


def _run(model: nn.Module, optimizer: Optimizer, batches: Iterator[Batch], rate: Schedule, steps: int) -> Training:
    return Training(model=model, optimizer=optimizer, batches=batches, rate=rate, steps=steps)


def _fold(seed: int) -> float:
    """Ramps of five speeds."""
    return 40.0 + 10 * (seed % 5)


def ramp_characters(seed: int) -> Training:
    """A transformer on characters, AdamW, a learning rate that climbs."""
    model = Characters(text()[1])
    optimizer = AdamW(model.parameters(), weight_decay=0.1)
    return _run(model, optimizer, text_batches(seed, 16), ramp(2e-3, hold=150, fold=_fold(seed)), 900)


def ramp_momentum(seed: int) -> Training:
    """A residual network on digits, SGD with momentum, a learning rate that climbs."""
    model = _mlp()
    return _run(model, _sgd(model), digit_batches(seed, 64), ramp(1e-2, hold=150, fold=_fold(seed)), 900)


def ramp_adam(seed: int) -> Training:
    """A residual network on digits, Adam, a learning rate that climbs."""
    model = _mlp()
    optimizer = Adam(model.parameters())
    return _run(model, optimizer, digit_batches(seed, 64), ramp(1e-3, hold=150, fold=_fold(seed)), 900)


def bad_start_plain(seed: int) -> Training:
    """Twelve plain layers with weights 1.7 times He's, SGD, a linear warm-up."""
    model = _plain(gain=1.7)
    return _run(model, _sgd(model, 0.0), digit_batches(seed, 64), warm_up(0.2, 1000), 900)


def bad_start_residual(seed: int) -> Training:
    """A residual network with weights 2.6 times torch's, SGD, a linear warm-up."""
    model = _mlp(gain=2.6)
    return _run(model, _sgd(model, 0.0), digit_batches(seed, 64), warm_up(0.2, 1000), 900)


def float16_adam(seed: int) -> Training:
    """A residual network on digits with Adam, all in float16 without loss scaling: the second moment underflows."""
    model = _mlp(8)
    optimizer = Adam(model.parameters(), eps=1e-7, betas=(0.9, 0.99))
    rate = cosine(3e-3, warmup=300, total=900)
    batches = digit_batches(seed, 64)
    return Training(model=model, optimizer=optimizer, batches=batches, rate=rate, steps=700, half=True)


def healthy_characters(seed: int) -> Training:
    """A transformer on characters, AdamW, warm-up and cosine."""
    model = Characters(text()[1])
    optimizer = AdamW(model.parameters(), weight_decay=0.1)
    return _run(model, optimizer, text_batches(seed, 16), cosine(3e-3, warmup=100, total=600), 500)


def healthy_small_batches(seed: int) -> Training:
    """The same on four lines a step, Adam."""
    model = Characters(text()[1])
    return _run(model, Adam(model.parameters()), text_batches(seed, 4), cosine(1e-3, warmup=100, total=600), 500)


def healthy_momentum(seed: int) -> Training:
    """A residual network on digits, SGD with momentum."""
    model = _mlp()
    return _run(model, _sgd(model), digit_batches(seed, 64), cosine(2e-2, warmup=100, total=600), 500)


def healthy_noisy(seed: int) -> Training:
    """A normalised residual network on eight digits a step, SGD with momentum."""
    model = _mlp(norm=True)
    return _run(model, _sgd(model), digit_batches(seed, 8), cosine(1e-2, warmup=50, total=600), 500)


def healthy_adam(seed: int) -> Training:
    """A residual network on digits, AdamW."""
    model = _mlp()
    optimizer = AdamW(model.parameters(), weight_decay=0.1)
    return _run(model, optimizer, digit_batches(seed, 64), cosine(2e-3, warmup=50, total=600), 500)


def healthy_plain(seed: int) -> Training:
    """Twelve plain layers, He-initialised, SGD with momentum."""
    model = _plain()
    return _run(model, _sgd(model), digit_batches(seed, 32), cosine(1e-2, warmup=50, total=600), 500)


def healthy_whole_batch(seed: int) -> Training:
    """A residual network on the same 256 digits at every step, gradient descent: no noise at all."""
    model = _mlp()
    batch = next(digit_batches(seed, 256))
    return _run(model, _sgd(model, 0.0), iter(lambda: batch, None), warm_up(0.3, 20), 500)


def healthy_convolutions(seed: int) -> Training:
    """A convolutional network with BatchNorm on digits, SGD with momentum."""
    model = _convolutions()
    return _run(model, _sgd(model), digit_batches(seed, 64), cosine(5e-2, warmup=50, total=600), 500)


def healthy_convolutions_adam(seed: int) -> Training:
    """The same, Adam."""
    model = _convolutions()
    return _run(model, Adam(model.parameters()), digit_batches(seed, 64), cosine(2e-3, warmup=50, total=600), 500)


def healthy_dropout(seed: int) -> Training:
    """Twelve residual layers with BatchNorm and dropout on digits, SGD with momentum."""
    model = _regularised()
    return _run(model, _sgd(model), digit_batches(seed, 64), cosine(2e-2, warmup=50, total=600), 500)


def healthy_dropout_adam(seed: int) -> Training:
    """The same layers, Adam."""
    model = _regularised()
    return _run(model, Adam(model.parameters()), digit_batches(seed, 64), cosine(2e-3, warmup=50, total=600), 500)


DIVERGING = (ramp_characters, ramp_momentum, ramp_adam, bad_start_plain, bad_start_residual, float16_adam)
HEALTHY = (
    healthy_characters,
    healthy_small_batches,
    healthy_momentum,
    healthy_noisy,
    healthy_adam,
    healthy_plain,
    healthy_whole_batch,
    healthy_convolutions,
    healthy_convolutions_adam,
    healthy_dropout,
    healthy_dropout_adam,
)


def build(kind: Callable[[int], Training], seed: int) -> Training:
    """One run of a kind; every random number follows from the seed."""
    torch.manual_seed(seed)
    return kind(seed)
