"""Inputs that nobody gave: found by trying, described, and without a trace in the model."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

from dynstab.core.errors import InputError
from dynstab.loading import LoadedModel, as_inputs, infer_inputs


def loaded(module: nn.Module, inputs=None) -> LoadedModel:
    return LoadedModel(module=module, source="model.pt", format="module", inputs=inputs)


class Tokens(nn.Module):
    """A linear layer that insists on three dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(6, 6)

    def forward(self, x):
        batch, tokens, width = x.shape
        return self.mix(x)


class Bare(nn.Module):
    """No layer of torch.nn at all."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(5))

    def forward(self, x):
        return torch.tanh(x @ self.weight)


class TwoSizes(nn.Module):
    """Two arguments of different sizes, used in another order than their layers were defined in."""

    def __init__(self) -> None:
        super().__init__()
        self.right, self.left = nn.Linear(5, 4), nn.Linear(8, 4)

    def forward(self, left, right):
        return self.left(left) + self.right(right)


class OfTimm(nn.Module):
    """Says as timm's models do what it was made for, and takes nothing else."""

    pretrained_cfg = {"input_size": (3, 48, 48), "architecture": "tiny"}

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 2, 3)

    def forward(self, x):
        assert x.shape[-2:] == (48, 48)
        return self.stem(x)


class Marking(nn.Module):
    """Leaves traces: a counter, a replaced buffer, drawn numbers, an attribute, another mode."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
        self.register_buffer("calls", torch.zeros(1))
        self.register_buffer("last", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        self.last = x.mean().reshape(1)
        self.cache = torch.rand(2)
        self.train()
        return self.inner(x)


def image_net(side: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.Flatten(), nn.Linear(2 * side * side, 2))


MODELS = {
    "linear": (lambda: nn.Sequential(nn.Linear(7, 3), nn.ReLU()), [(4, 7)]),
    "tokens": (Tokens, [(4, 16, 6)]),
    "images of 32": (lambda: image_net(32), [(4, 3, 32, 32)]),
    "images of 28": (lambda: image_net(28), [(4, 3, 28, 28)]),
    "grouped convolution": (lambda: nn.Conv2d(4, 4, 3, groups=2), [(4, 4, 32, 32)]),
    "signals": (lambda: nn.Conv1d(2, 3, 3), [(4, 2, 64)]),
    "volumes": (lambda: nn.Conv3d(2, 3, 3), [(4, 2, 16, 16, 16)]),
    "embedding": (lambda: nn.Sequential(nn.Embedding(11, 4), nn.Linear(4, 2)), [(4, 16)]),
    "lstm, time first": (lambda: nn.LSTM(3, 5), [(16, 4, 3)]),
    "gru, batch first": (lambda: nn.GRU(3, 5, batch_first=True), [(4, 16, 3)]),
    "cell": (lambda: nn.LSTMCell(3, 5), [(4, 3)]),
    "encoder": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), [(4, 16, 8)]),
    "encoder and decoder": (
        lambda: nn.Transformer(8, 1, 1, 1, 16, batch_first=True),
        [(4, 16, 8), (4, 16, 8)],
    ),
    "attention, time first": (lambda: nn.MultiheadAttention(8, 2), [(16, 4, 8)] * 3),
    "norm first": (lambda: nn.Sequential(nn.LayerNorm(9), nn.Linear(9, 2)), [(4, 9)]),
    "batch norm first": (lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 2, 3)), [(4, 3, 32, 32)]),
    "waveforms": (lambda: nn.Sequential(nn.Conv1d(1, 4, 400, stride=160), nn.Conv1d(4, 2, 3)), [(4, 1, 1024)]),
    "a second of sound": (
        lambda: nn.Sequential(nn.Conv1d(1, 4, 80, 16), nn.MaxPool1d(4), nn.Conv1d(4, 4, 3), nn.MaxPool1d(32)),
        [(4, 1, 16000)],
    ),
    "two sizes": (TwoSizes, [(4, 8), (4, 5)]),
    "size of timm": (OfTimm, [(4, 3, 48, 48)]),
    "bare parameter": (Bare, [(4, 5)]),
    "no parameter": (nn.Tanh, [(4, 16)]),
}


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.parametrize("name", MODELS)
def test_the_first_layers_tell_what_a_model_takes(name):
    make, shapes = MODELS[name]
    module = make()
    inputs = infer_inputs(loaded(module), samples=4, seed=3)
    assert [tuple(each.shape) for each in inputs.args] == shapes
    assert inputs.made_up and inputs.kwargs == {}
    module.eval()(*inputs.args)
    (line,) = inputs.description
    kind = "randint" if name == "embedding" else "randn"
    assert line.startswith("made up from ") and f"{kind}:{','.join(map(str, shapes[0]))}" in line


def test_the_description_tells_what_was_rejected():
    (line,) = infer_inputs(loaded(Tokens())).description
    assert line == "made up from Linear 'mix': randn:8,16,6; the model rejected randn:8,6"


def test_inputs_take_the_dtype_of_the_model():
    assert infer_inputs(loaded(nn.Linear(3, 3).bfloat16())).args[0].dtype == torch.bfloat16
    assert infer_inputs(loaded(nn.Linear(3, 3).double())).args[0].dtype == torch.float64


def test_the_seed_decides_the_values():
    first, again, other = (infer_inputs(loaded(nn.Linear(3, 3)), seed=seed).args[0] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_inputs_that_came_along_are_taken_as_they_are():
    given = as_inputs(torch.ones(2, 3))
    assert infer_inputs(loaded(nn.Linear(5, 5), given)) is given


def test_the_model_comes_back_as_it_was():
    module = Marking().train()
    module.inner[2].eval()
    random.seed(0)
    state = {name: value.clone() for name, value in module.state_dict().items()}
    tables = {id(each): name for name, each in module.named_buffers()}
    modes = [each.training for each in module.modules()]
    attributes = set(vars(module))
    generator = torch.get_rng_state()
    infer_inputs(loaded(module))
    assert torch.equal(torch.get_rng_state(), generator)
    assert [each.training for each in module.modules()] == modes
    assert set(vars(module)) == attributes
    assert {id(each): name for name, each in module.named_buffers()} == tables
    for name, value in module.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert all(each.grad is None for each in module.parameters())


def test_a_model_that_rejects_everything_says_why_and_what_was_tried():
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 3)

        def forward(self, left, right):
            raise ValueError("needs a graph\nwith edges")

    with pytest.raises(InputError) as caught:
        infer_inputs(loaded(Picky()))
    message = str(caught.value)
    assert "randn:8,3 randn:8,3" in message and "ValueError: needs a graph" in message and "with edges" not in message
    assert "forward(left, right)" in message and "--input" in message


def test_lazy_layers_ask_for_a_first_call():
    with pytest.raises(InputError, match="lazy"):
        infer_inputs(loaded(nn.LazyLinear(3)))
