"""Every architecture that transformers registers, as a small model with random weights."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
import transformers.models.auto.modeling_auto as auto
from shrink import Variant, small
from torch import nn
from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES

from dynstab.core.errors import InputError
from dynstab.loading import Inputs, LoadedModel, infer_inputs
from dynstab.loading.candidates import candidates
from dynstab.loading.infer_inputs import realise, try_inputs

_LARGEST = 30_000_000  # parameters
_LIKELY = 8  # inputs that are tried with every variant
_PATIENT = 3  # variants with which all inputs are tried
_VARIANTS = (
    Variant(),
    Variant(key_value_heads=4),
    Variant(lists=False),
    Variant(key_value_heads=4, width=96, head_width=24),
    Variant(head_width=32),
    Variant(fill=True),
    Variant(width=128, heads=1, key_value_heads=1, head_width=128),
    Variant(layers=12, lists=False),
    Variant(side=64),
    Variant(fill=True, key_value_heads=4),
    Variant(width=128, heads=2, key_value_heads=2, head_width=64),
    Variant(width=96, key_value_heads=4, head_width=24, layers=12, lists=False, side=64),
    Variant(width=32, key_value_heads=4, head_width=8, divided=True, side=64),
)


class NotSmall(Exception):
    """No small model of this architecture comes from the rules; the message says why in one line."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A model type of the registry with the first class that the automatic mappings name for it."""

    family: str
    task: str


@dataclass(frozen=True, kw_only=True)
class Built:
    """A small model in eval mode with seeded weights, and inputs that dynstab made up for it."""

    module: nn.Module
    inputs: Inputs
    name: str = ""  # of the model, where a family has several


def architectures() -> Iterator[Architecture]:
    """One entry for every model type: its bare model, or else the first task that has a class."""
    tasks = [name for name in vars(auto) if name.startswith("MODEL_FOR_") and name.endswith("_MAPPING")]
    for family in CONFIG_MAPPING_NAMES:
        for task in ("MODEL_MAPPING", *sorted(tasks)):
            if family in getattr(auto, f"{task}_NAMES", ()):
                yield Architecture(family=family, task=task)
                break


def build(architecture: Architecture, samples: int) -> Built:
    """The first variant of the small configuration that makes a model which accepts an input.

    Raises:
        NotSmall: the architecture needs a package that is not installed, or no variant makes a small model.
        InputError: it accepts no input that dynstab makes up; the answer is that of the first variant.
    """
    reasons: list[str] = []
    refusal: InputError | None = None
    # The likeliest inputs for every variant first: sizes that fit ill make a model reject all inputs there are.
    trials = [*((variant, True) for variant in _VARIANTS), *((variant, False) for variant in _VARIANTS[:_PATIENT])]
    for variant, likeliest in trials:
        try:
            module = _model(architecture, variant)
            if likeliest and not _accepts_a_likely_input(module, samples):
                continue
            return Built(module=module, inputs=infer_inputs(_loaded(module), samples=samples))
        except InputError as error:
            refusal = refusal or error
        except ImportError as error:
            raise NotSmall(f"needs a package that is not installed: {_line(error)}") from error
        except Exception as error:  # whatever a configuration says to sizes that it does not like
            reasons.append(_line(error))
    raise refusal or NotSmall(reasons[0])


def _accepts_a_likely_input(module: nn.Module, samples: int) -> bool:
    likely = islice(candidates(module, samples), _LIKELY)
    return any(not try_inputs(module, realise(candidate, module, 0)) for candidate in likely)


def _loaded(module: nn.Module) -> LoadedModel:
    return LoadedModel(module=module, source=type(module).__name__, format="module", trusted=True)


def _model(architecture: Architecture, variant: Variant) -> nn.Module:
    config = small(CONFIG_MAPPING[architecture.family], variant)
    kind = getattr(auto, architecture.task)[type(config)]
    kind = kind[0] if isinstance(kind, tuple | list) else kind
    with contextlib.redirect_stdout(io.StringIO()):
        with torch.device("meta"):
            size = sum(parameter.numel() for parameter in kind(config).parameters())
        if size > _LARGEST:
            raise NotSmall(f"{size / 1e6:.0f} million parameters after the rules")
        torch.manual_seed(0)
        return kind(config).eval()


def _line(error: BaseException) -> str:
    words = re.sub(r"/\S*site-packages/", "", " ".join(str(error).split()))
    return f"{type(error).__name__}: {words[:160]}"
