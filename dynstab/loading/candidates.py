"""Guesses at what a model takes, the likeliest first."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, permutations

import torch
from torch import Tensor, nn

from dynstab.loading.candidate import TOKENS, Candidate
from dynstab.loading.configured import from_config
from dynstab.loading.inputs import InputSpec

_IMAGE_SIDES = (32, 64, 224, 28, 16, 8, 128)
_FIRST_LAYERS = 4


def candidates(module: nn.Module, samples: int) -> Iterator[Candidate]:
    """From the configuration if there is one, then from the first layers, then from bare parameters."""
    config = getattr(module, "config", None)
    if hasattr(config, "model_type"):
        yield from from_config(module, config, samples)
    yield from from_input_size(module, samples)
    count = _required_arguments(module)
    if count > 1:
        yield from from_several_layers(module, samples, count)
    for candidate in chain(from_layers(module, samples), from_parameters(module, samples)):
        yield replace(candidate, specs=candidate.specs * count)


def from_input_size(module: nn.Module, samples: int) -> Iterator[Candidate]:
    """The size of images that a model of timm was made for."""
    config = getattr(module, "pretrained_cfg", None)
    size = config.get("input_size") if isinstance(config, dict) else None
    if isinstance(size, tuple | list) and len(size) == 3 and all(isinstance(each, int) for each in size):
        yield Candidate(specs=(InputSpec(kind="randn", shape=(samples, *size)),), reason="the model's input_size")


def _required_arguments(module: nn.Module) -> int:
    """How many tensors forward insists on; a scripted module knows by its own signature."""
    scripted = getattr(module, "signature", None)
    if isinstance(scripted, tuple):
        return max(1, sum(not optional for _, optional, _ in scripted))
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return 1
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return max(1, sum(each.kind in positional and each.default is each.empty for each in parameters))


def from_layers(module: nn.Module, samples: int) -> Iterator[Candidate]:
    """What the first layers take, by the kind of layer and the shape of its weights."""
    found = [(name, each) for name, each in module.named_modules() if _kind(each) in _SHAPES]
    # A recurrence or a transformer says more than the projections inside it, and comes before them by itself.
    for name, layer in found[:_FIRST_LAYERS]:
        reason = f"{_kind(layer)} {name!r}" if name else _kind(layer)
        for spec in _SHAPES[_kind(layer)](layer, samples):
            yield Candidate(specs=(spec,), reason=reason)


def from_several_layers(module: nn.Module, samples: int, count: int) -> Iterator[Candidate]:
    """Arguments of different sizes: each feeds a layer of its own, in the order in which the layers were defined."""
    layers = [(name, each) for name, each in module.named_modules() if _kind(each) in _SHAPES]
    firsts = [(name, next(_SHAPES[_kind(layer)](layer, samples))) for name, layer in layers[:_FIRST_LAYERS]]
    for chosen in permutations(firsts, count):
        if len({spec.shape for _, spec in chosen}) > 1:
            names = ", ".join(repr(name) for name, _ in chosen)
            yield Candidate(specs=tuple(spec for _, spec in chosen), reason=f"the layers {names}")


def from_parameters(module: nn.Module, samples: int) -> Iterator[Candidate]:
    """Sizes of bare weight matrices, for models without a known layer; one entry a sample as the last resort."""
    matrices = [(name, each) for name, each in module.named_parameters() if each.ndim == 2]
    for name, matrix in matrices[:_FIRST_LAYERS]:
        for size in dict.fromkeys((matrix.shape[1], matrix.shape[0])):
            for shape in ((samples, size), (samples, TOKENS, size)):
                yield Candidate(specs=(InputSpec(kind="randn", shape=shape),), reason=f"the parameter {name!r}")
    vectors = [(name, each) for name, each in module.named_parameters() if each.ndim == 1]
    for name, vector in vectors[:1]:
        spec = InputSpec(kind="randn", shape=(samples, *vector.shape))
        yield Candidate(specs=(spec,), reason=f"the parameter {name!r}")
    yield Candidate(specs=(InputSpec(kind="randn", shape=(samples, TOKENS)),), reason="no size that the model names")


def _kind(module: nn.Module) -> str:
    """The class of a layer, also of one that came through TorchScript; subclasses count as their torch.nn base."""
    name = getattr(module, "original_name", None)
    if isinstance(name, str):
        return name
    return next((each.__name__ for each in type(module).__mro__ if each.__module__.startswith("torch.nn.modules")), "")


def _weight(layer: nn.Module, name: str = "weight") -> Tensor:
    value = getattr(layer, name, None)
    return value if isinstance(value, Tensor) else torch.empty(0, 0, 0)


def _noise(*shapes: tuple[int, ...]) -> Iterator[InputSpec]:
    return (InputSpec(kind="randn", shape=shape) for shape in shapes)


def _linear(layer: nn.Module, n: int) -> Iterator[InputSpec]:
    size = _weight(layer).shape[-1]
    return _noise((n, size), (n, TOKENS, size))


def _convolution(layer: nn.Module, n: int) -> Iterator[InputSpec]:
    weight = _weight(layer)
    channels = getattr(layer, "in_channels", weight.shape[1] * getattr(layer, "groups", 1))
    return _grid(n, channels, weight.ndim - 2)


def _transposed(layer: nn.Module, n: int) -> Iterator[InputSpec]:
    weight = _weight(layer)
    return _grid(n, weight.shape[0], weight.ndim - 2)


def _grid(n: int, channels: int, dimensions: int) -> Iterator[InputSpec]:
    """Signals, images or volumes with so many channels."""
    sides = {1: (64, 16, 128, 256, 1024, 16000), 2: _IMAGE_SIDES, 3: (16, 8, 32)}[dimensions]
    return _noise(*((n, channels, *(side,) * dimensions) for side in sides))


def _embedding(layer: nn.Module, n: int) -> Iterator[InputSpec]:
    rows = _weight(layer).shape[0]
    for shape in ((n, TOKENS), (n, 8), (n, 4), (n,)):
        yield InputSpec(kind="randint", shape=shape, low=0, high=rows)


def _recurrent(layer: nn.Module, n: int) -> Iterator[InputSpec]:
    size = _weight(layer, "weight_ih_l0").shape[-1]
    batch_first = getattr(layer, "batch_first", True)
    shapes = [(n, TOKENS, size), (TOKENS, n, size)]
    return _noise(*(shapes if batch_first else shapes[::-1]))


def _cell(layer: nn.Module, n: int) -> Iterator[InputSpec]:
    return _noise((n, _weight(layer, "weight_ih").shape[-1]))


def _attention(layer: nn.Module, n: int) -> Iterator[InputSpec]:
    attention = next((each for each in layer.modules() if _kind(each) == "MultiheadAttention"), layer)
    size = _weight(getattr(attention, "out_proj", attention)).shape[-1]
    shapes = [(n, TOKENS, size), (TOKENS, n, size)]
    return _noise(*(shapes if getattr(attention, "batch_first", True) else shapes[::-1]))


def _normalised(layer: nn.Module, n: int) -> Iterator[InputSpec]:
    shape = tuple(_weight(layer).shape) or tuple(getattr(layer, "normalized_shape", ()))
    return _noise((n, *shape), (n, TOKENS, *shape))


def _batch_normalised(layer: nn.Module, n: int) -> Iterator[InputSpec]:
    channels = len(_weight(layer, "running_mean")) or getattr(layer, "num_features", 1)
    dimensions = int(_kind(layer)[-2])
    return chain(_noise((n, channels)) if dimensions == 1 else (), _grid(n, channels, dimensions))


_SHAPES = {
    "Linear": _linear,
    "Embedding": _embedding,
    "EmbeddingBag": _embedding,
    "MultiheadAttention": _attention,
    "LayerNorm": _normalised,
    "RMSNorm": _normalised,
    **dict.fromkeys(("Conv1d", "Conv2d", "Conv3d"), _convolution),
    **dict.fromkeys(("ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"), _transposed),
    **dict.fromkeys(("RNN", "LSTM", "GRU"), _recurrent),
    **dict.fromkeys(("RNNCell", "LSTMCell", "GRUCell"), _cell),
    "Transformer": _attention,
    **dict.fromkeys(("TransformerEncoder", "TransformerEncoderLayer"), _attention),
    **dict.fromkeys(("TransformerDecoder", "TransformerDecoderLayer"), _attention),
    **dict.fromkeys(("BatchNorm1d", "BatchNorm2d", "BatchNorm3d"), _batch_normalised),
}
