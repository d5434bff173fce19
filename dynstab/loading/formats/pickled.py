"""What torch.save writes, zipped or legacy, and plain pickles: a whole module, or weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from dynstab.core.errors import LoadError
from dynstab.loading.loaded import LoadedModel
from dynstab.loading.loader import Loader, Match, Options
from dynstab.loading.probe import Probe
from dynstab.loading.safe_pickle import is_legacy, load_pickle
from dynstab.loading.weights import find_weights, load_weights


class PickledLoader(Loader):
    """A pickle; read by torch's restricted unpickler unless the user trusts it."""

    def sniff(self, probe: Probe) -> Match | None:
        if "data.pkl" in probe.records and "constants.pkl" not in probe.records:
            return Match(format="torch.save", probe=probe)
        if is_legacy(probe.head):
            return Match(format="torch.save (legacy)", probe=probe)
        if probe.head[:1] == b"\x80" and probe.head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05") and probe.size > 3:
            return Match(format="pickle", probe=probe)
        return None

    def load(self, match: Match, options: Options) -> LoadedModel:
        value = load_pickle(match.probe.path, options)
        found, note = _find_module(value)
        if found is not None:
            notes = (note,) if note else ()
            if options.model is not None:
                notes = (*notes, f"--model {options.model} was not needed: the file holds a whole module")
            return LoadedModel(
                module=found,
                source=match.source,
                format=f"{match.format}, module",
                trusted=options.trust_pickle,
                notes=notes,
            )
        tensors = find_weights(value)
        several = _modules_in(value)
        if tensors is None and several:
            raise LoadError(
                f"{match.source} holds {len(several)} modules: {', '.join(map(repr, several[:8]))}",
                expected="one",
                remedy="save the one to analyze alone, torch.save(checkpoint[NAME], file)",
            )
        if tensors is None:
            raise LoadError(
                f"{match.source} holds neither a module nor named weights: {_summary(value)}",
                expected="torch.save(model) or torch.save(model.state_dict())",
            )
        return load_weights(tensors, Match(format=f"{match.format}, weights", probe=match.probe), options)


def _find_module(value: Any) -> tuple[nn.Module | None, str]:
    """A module, or the module in a checkpoint that holds exactly one."""
    if isinstance(value, nn.Module):
        return value, ""
    if isinstance(value, Mapping):
        names = _modules_in(value)
        if len(names) == 1:
            return value[names[0]], f"the module is the entry {names[0]!r} of the checkpoint"
    return None, ""


def _modules_in(value: Any) -> list[Any]:
    """The keys of a checkpoint under which it holds a module."""
    return [name for name, each in value.items() if isinstance(each, nn.Module)] if isinstance(value, Mapping) else []


def _summary(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a dict with {', '.join(map(repr, list(value)[:8])) or 'no entries'}"
    return f"an object of type {type(value).__name__}"
