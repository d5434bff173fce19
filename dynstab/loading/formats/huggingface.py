"""Directories in the layout of Hugging Face: config.json beside weights, in one file or in shards."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dynstab.core.errors import LoadError, first_line
from dynstab.loading.loaded import LoadedModel
from dynstab.loading.loader import Loader, Match, Options
from dynstab.loading.probe import Probe

_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model.bin.index.json")
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


class HuggingFaceLoader(Loader):
    """Builds the architecture that config.json names. Never runs code from the directory, never downloads."""

    def sniff(self, probe: Probe) -> Match | None:
        found = probe.is_directory and (probe.path / "config.json").is_file()
        return Match(format="Hugging Face directory", probe=probe) if found else None

    def load(self, match: Match, options: Options) -> LoadedModel:
        path = match.probe.path
        config = read_config(path)
        has_weights = any(any(path.glob(pattern)) for pattern in _WEIGHTS)
        try:
            with offline_and_quiet() as transformers:
                kind = _architecture(transformers, config, path)
                module, notes = _pretrained(kind, path) if has_weights else _fresh(transformers, kind, path)
        except LoadError:
            raise
        except Exception as error:
            # transformers raises many types for damaged configurations and weights.
            raise LoadError(
                f"{path} is a Hugging Face directory that transformers cannot load "
                f"({type(error).__name__}: {first_line(error)})",
                remedy="check that all shards are there and whole",
            ) from error
        return LoadedModel(module=module, source=match.source, format=match.format, notes=notes)


def read_config(path: Path) -> dict[str, Any]:
    """The content of config.json.

    Raises:
        LoadError: it is not JSON, or describes no model.
    """
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise LoadError(f"{path}/config.json is not JSON ({error})") from error
    if not isinstance(config, dict) or "model_type" not in config:
        raise LoadError(f"{path}/config.json names no model_type", expected="a configuration that transformers wrote")
    return config


def _architecture(transformers: Any, config: dict[str, Any], path: Path) -> Any:
    """The class that config.json names, or the bare model of its type."""
    names = config.get("architectures") or []
    for name in names:
        kind = getattr(transformers, name, None)
        if isinstance(kind, type) and issubclass(kind, nn.Module):
            return kind
    if "auto_map" in config or names:
        raise LoadError(
            f"{path} needs the class {names[0] if names else config['auto_map']}, which transformers "
            f"{transformers.__version__} does not have; code in the directory is never run",
            remedy="build the model in a Python file of yours and pass path/file.py:factory",
        )
    return transformers.AutoModel


def _pretrained(kind: Any, path: Path) -> tuple[nn.Module, tuple[str, ...]]:
    module, info = kind.from_pretrained(
        str(path), local_files_only=True, trust_remote_code=False, dtype="auto", output_loading_info=True
    )
    notes = []
    told = {"missing_keys": "missing from the files and initialised afresh", "unexpected_keys": "unused"}
    for key, words in told.items():
        names = sorted(info[key])
        if names:
            notes.append(f"{len(names)} weights {words}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}")
    return module, tuple(notes)


def _fresh(transformers: Any, kind: Any, path: Path) -> tuple[nn.Module, tuple[str, ...]]:
    config = transformers.AutoConfig.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = kind.from_config(config) if kind is transformers.AutoModel else kind(config)
    return module.eval(), ("no weights in the directory: initialised from config.json with seed 0",)


@contextmanager
def offline_and_quiet() -> Iterator[Any]:
    """transformers, imported so that it neither downloads nor prints.

    Raises:
        LoadError: it is not installed.
    """
    before = {name: os.environ.get(name) for name in _OFFLINE}
    os.environ.update(dict.fromkeys(_OFFLINE, "1"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                import transformers
            except ImportError as error:
                raise LoadError(
                    "a Hugging Face directory needs transformers", remedy="pip install 'dynstab[hf]'"
                ) from error
            with _silent(transformers.utils.logging):
                yield transformers
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _silent(logging: Any) -> Iterator[None]:
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
