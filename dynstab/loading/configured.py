"""What a Hugging Face model says of itself: its main input, the vocabulary, sizes of images and features."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dynstab.loading.candidate import TOKENS, Candidate
from dynstab.loading.inputs import InputSpec

_SIDES = (32, 64, 224)
_FRAMES = 4
_GRID = 4  # patches along each direction of a packed image
_WAVES = (4000, 16000, 1920 * 4)
_IMAGES, _WAVE = ("pixel_values", "pixel_values_videos"), ("input_values",)
_FEATURES = ("input_features", "audio_values")


def from_config(module: nn.Module, config: Any, samples: int) -> Iterator[Candidate]:
    """The main input alone, then with the company that forward's signature knows."""
    taken = _arguments(module)
    main = getattr(module, "main_input_name", "input_ids")
    mains = dict.fromkeys([name for name in (main,) if name in taken or not taken] + list(taken)[:1])
    reason = f"the configuration of {config.model_type}"
    parts = _parts(config)
    for name in mains:
        for spec in _alternatives(name, module, parts, samples):
            for company in _companies(spec, module, parts, samples):
                yield Candidate(specs=(spec, *company), reason=reason)


def _arguments(module: nn.Module) -> dict[str, bool]:
    """The names that forward takes, and whether it insists on them."""
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return {}
    named = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {each.name: each.default is each.empty for each in parameters if each.kind in named}


def _parts(config: Any, depth: int = 3) -> list[Any]:
    """The configuration and those nested in it, outermost first."""
    if depth == 0:
        return []
    nested = [value for value in vars(config).values() if hasattr(value, "model_type")]
    return [config, *(part for value in nested for part in _parts(value, depth - 1))]


def _lookup(parts: list[Any], *names: str, default: Any) -> Any:
    """The first of several attributes, here or in the configuration of a part."""
    for part in parts:
        for name in names:
            if getattr(part, name, None) is not None:
                return getattr(part, name)
    return default


def _alternatives(name: str, module: nn.Module, parts: list[Any], samples: int) -> Iterator[InputSpec]:
    """Shapes that an argument of this name may have."""
    if name in _IMAGES:
        if any(each.endswith("grid_thw") for each in _arguments(module)) and "input_ids" not in _arguments(module):
            yield from _packed(name, parts, samples)
        yield from _images(name, parts, samples)
    elif name in _WAVE:
        yield from (_noise(name, samples, length) for length in _WAVES)
        yield from (_noise(name, samples, 1, length) for length in _WAVES)
    elif name in _FEATURES:
        yield from _features(name, parts, samples)
    elif name == "hidden_states":
        yield from _packed(name, parts, samples)
    elif name == "past_values":
        length = _lookup(parts, "context_length", default=32)
        yield _noise(name, samples, length, _lookup(parts, "num_input_channels", default=1))
        yield _noise(name, samples, length)
    else:
        yield _text(name, module, parts, samples)


def _companies(spec: InputSpec, module: nn.Module, parts: list[Any], samples: int) -> Iterator[tuple[InputSpec, ...]]:
    """What may have to come along, the least first: what forward insists on, then one more that it knows."""
    taken = _arguments(module)
    text = _text("input_ids", module, parts, samples)
    needed = [name for name, required in taken.items() if required and name != spec.name]
    if any(getattr(part, "is_encoder_decoder", False) for part in parts[:1]):
        needed.append("decoder_input_ids")
    base = tuple(made for name in needed if (made := _companion(name, spec, text, samples)))
    yield base
    for name in taken:
        made = None if name in needed or name == spec.name else _companion(name, spec, text, samples)
        if made and not name.endswith("_mask"):
            yield (*base, made)
    for name in (*_IMAGES[:1], *_WAVE, *_FEATURES):
        if name in taken and name != spec.name:
            yield from ((other, *base) for other in _alternatives(name, module, parts, samples))


def _companion(name: str, spec: InputSpec, text: InputSpec, samples: int) -> InputSpec | None:
    """An argument whose name says what it is, None for one that says nothing."""
    if name.endswith("input_ids"):
        return replace(text, name=name)
    if name.endswith("_mask") and len(spec.shape) > 1:
        return InputSpec(kind="ones", shape=(samples, spec.shape[-1]), dtype=torch.int64, name=name)
    if name == "bbox":
        return InputSpec(kind="randint", shape=(*spec.shape[:2], 4), low=1, high=2, name=name)
    if name.endswith("grid_thw"):
        return InputSpec(kind="randint", shape=(samples, 3), low=_GRID, high=_GRID + 1, name=name)
    return None


def _noise(name: str, *shape: int) -> InputSpec:
    return InputSpec(kind="randn", shape=shape, name=name)


def _text(name: str, module: nn.Module, parts: list[Any], samples: int) -> InputSpec:
    positions = _lookup(parts, "max_position_embeddings", "n_positions", "n_ctx", default=TOKENS)
    tokens = min(TOKENS, positions) if isinstance(positions, int) and positions > 0 else TOKENS
    return InputSpec(kind="randint", shape=(samples, tokens), low=0, high=_vocabulary(module, parts), name=name)


def _vocabulary(module: nn.Module, parts: list[Any]) -> int:
    """Rows of the embedding itself, where the model names it; a configuration may nest it anywhere."""
    try:
        weight = getattr(module.get_input_embeddings(), "weight", None)  # type: ignore[operator]
    except (AttributeError, NotImplementedError, TypeError):
        weight = None
    known = _lookup(parts, "vocab_size", default=1000)
    rows = len(weight) if isinstance(weight, Tensor) and weight.ndim == 2 else known
    return min(rows, known) if isinstance(known, int) else rows


def _images(name: str, parts: list[Any], samples: int) -> Iterator[InputSpec]:
    channels = _lookup(parts, "num_channels", "in_channels", "in_chans", default=3)
    channels = channels if isinstance(channels, int) else 3
    given = _lookup(parts, "image_size", "input_size", default=None)
    sides = [tuple(given) if isinstance(given, list | tuple) else (given, given)] if given else []
    sides += [(side, side) for side in _SIDES if (side, side) not in sides]
    for side in sides[: 2 if given else len(sides)]:
        yield _noise(name, samples, channels, *side)
        yield _noise(name, samples, _lookup(parts, "num_frames", default=_FRAMES), channels, *side)


def _features(name: str, parts: list[Any], samples: int) -> Iterator[InputSpec]:
    bins = _lookup(parts, "num_mel_bins", "feature_size", "input_feat_per_channel", default=80)
    frames = 2 * _lookup(parts, "max_source_positions", default=50)
    yield _noise(name, samples, bins, frames)
    yield _noise(name, samples, 50, bins)
    yield _noise(name, samples, 64, bins)


def _packed(name: str, parts: list[Any], samples: int) -> Iterator[InputSpec]:
    """Patches of all images in one row, each with all its pixels; or tokens with their features."""
    patch = _lookup(parts, "patch_size", default=14)
    channels = _lookup(parts, "in_channels", "in_chans", "num_channels", default=3)
    if isinstance(patch, int) and isinstance(channels, int):
        times = _lookup(parts, "temporal_patch_size", default=1)
        yield _noise(name, samples * _GRID**3, channels * times * patch * patch)
    width = _lookup(parts, "hidden_size", "d_model", "dim", default=64)
    yield _noise(name, samples, TOKENS, width)
