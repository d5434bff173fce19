"""One small model of every family of timm, where timm can be imported.

    pip install --no-deps timm==1.0.31 torchvision==0.28.0

A family is one of timm's own modules. Its model is the miniature that timm keeps for its tests, or else
the one with the fewest parameters; images are as small as the model accepts.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import types
from functools import cache
from pathlib import Path
from typing import Any

import torch
from architectures import Architecture, Built, NotSmall
from torch import nn

from dynstab.core.errors import InputError, first_line
from dynstab.loading import LoadedModel, infer_inputs

TASK = "timm"
_LARGE, _LARGEST = 30_000_000, 100_000_000  # parameters
_SIDES = (64, 128, 224, 256, None)  # the last is the model's own size
_SMALLER: tuple[dict[str, Any], ...] = ({}, {"depth": 2}, {"depth": 2, "embed_dim": 96, "num_heads": 3})


def families() -> list[Architecture]:
    """Every family, none where timm is not there. Call it before anything else imports torchvision."""
    if importlib.util.find_spec("timm") is None:
        return []
    return [Architecture(family=f"timm/{name}", task=TASK) for name in _timm().list_modules()]


def build_family(architecture: Architecture, samples: int) -> Built:
    """The small model of a family with inputs that dynstab makes up for it.

    Raises:
        NotSmall: no model of the family can be made small. InputError: the first that could accepts no input.
    """
    reasons: list[str] = []
    refusal: InputError | None = None
    name, smaller = _smallest(architecture.family.removeprefix("timm/"))
    for side in _SIDES:
        for options in ({"img_size": side}, {}) if side else ({},):
            try:
                module = _model(name, side, {**smaller, **options})
                loaded = LoadedModel(module=module, source=name, format="module", trusted=True)
                return Built(module=module, inputs=infer_inputs(loaded, samples=samples), name=name)
            except InputError as error:
                refusal = refusal or error
            except Exception as error:  # whatever a model says to arguments that it does not take
                reasons.append(f"{type(error).__name__}: {first_line(error)[:160]}")
    raise refusal or NotSmall(f"{name}: {reasons[0]}")


@cache
def _timm() -> types.ModuleType:
    _declare_operators()
    return importlib.import_module("timm")


_KEPT: list[torch.library.Library] = []  # a library that is collected takes its operators with it


def _declare_operators() -> None:
    """Let torchvision be imported over a torch that its compiled half was not built for.

    Its Python half gives shapes to operators of that other half, and fails where they do not
    exist. They are declared without a kernel: no model here calls one.
    """
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        return
    source = Path(found.origin).with_name("_meta_registrations.py").read_text(encoding="utf-8")
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in re.findall(r'register_fake\("torchvision::(\w+)"', source):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor x) -> Tensor")
    _KEPT.append(library)


def _smallest(family: str) -> tuple[str, dict[str, Any]]:
    """The model of a family with the fewest parameters, and what makes it small enough.

    Raises:
        NotSmall: nothing does.
    """
    names = _timm().list_models(module=family)
    miniatures = [name for name in names if name.startswith("test_")]
    sizes = {name: size for name in miniatures or names if (size := _size(name, {})) is not None}
    if not sizes:
        raise NotSmall("none of its models can be made on the meta device")
    name = min(sizes, key=lambda each: sizes[each])
    for limit in (_LARGE, _LARGEST):
        for smaller in _SMALLER:
            size = _size(name, smaller)
            if size is not None and size <= limit:
                return name, smaller
    raise NotSmall(f"{name}: {sizes[name] / 1e6:.0f} million parameters")


def _size(name: str, options: dict[str, Any]) -> int | None:
    """How many parameters a model has; None where it cannot be told without making it, or not with these options."""
    try:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in _timm().create_model(name, **options).parameters())
    except Exception:  # whatever a model says to arguments, or to tensors without values
        return None


def _model(name: str, side: int | None, options: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    overlay = {"input_size": (3, side, side)} if side else None
    return _timm().create_model(name, pretrained=False, pretrained_cfg_overlay=overlay, **options).eval()
