"""Safetensors: a JSON header and raw weights, without code."""

from __future__ import annotations

from safetensors import SafetensorError
from safetensors.torch import load_file

from dynstab.core.errors import LoadError
from dynstab.loading.loaded import LoadedModel
from dynstab.loading.loader import Loader, Match, Options
from dynstab.loading.probe import Probe
from dynstab.loading.weights import load_weights


class SafetensorsLoader(Loader):
    """Weights alone; the architecture comes from `--model`."""

    def sniff(self, probe: Probe) -> Match | None:
        return None if probe.safetensors_header is None else Match(format="safetensors", probe=probe)

    def load(self, match: Match, options: Options) -> LoadedModel:
        try:
            tensors = load_file(match.source)
        except SafetensorError as error:
            raise LoadError(
                f"{match.source} looks like safetensors, damaged or truncated ({error})",
                remedy="write or fetch the file again",
            ) from error
        if not tensors:
            raise LoadError(f"{match.source} is a safetensors file without a tensor")
        beside = match.probe.path.parent / "config.json"
        if options.model is None and beside.is_file():
            raise LoadError(
                f"{match.source} holds the weights of the model that {beside} describes",
                remedy=f"give the directory instead: {beside.parent}",
            )
        return load_weights(tensors, match, options)
