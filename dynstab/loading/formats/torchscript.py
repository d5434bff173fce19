"""TorchScript archives, scripted or traced."""

from __future__ import annotations

import re
import warnings
from typing import Any

import torch

from dynstab.core.errors import LoadError, UnsafePickle, first_line
from dynstab.loading.loaded import LoadedModel
from dynstab.loading.loader import Loader, Match, Options
from dynstab.loading.probe import Probe
from dynstab.loading.script_graph import Program, mirror
from dynstab.loading.script_ops import UNSAFE

_OUTSIDE = re.compile(rf"\b(?:torch|ops\.\w+)\.({'|'.join(sorted(UNSAFE))})\(")


class TorchScriptLoader(Loader):
    """Reads the archive with torch and turns it into plain modules."""

    def sniff(self, probe: Probe) -> Match | None:
        return Match(format="TorchScript", probe=probe) if "constants.pkl" in probe.records else None

    def load(self, match: Match, options: Options) -> LoadedModel:
        if not options.trust_pickle:
            _refuse_outside(match.probe)  # a scripted __setstate__ runs while the archive is read
        reader: Any = torch._C  # its stubs lag behind
        unit = reader.CompilationUnit()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                scripted = reader.import_ir_module(unit, match.source, torch.device("cpu"), {}, False)
        except Exception as error:
            # The reader in C++ answers damaged bytes with whatever its containers throw.
            raise LoadError(
                f"{match.source} is TorchScript, damaged or of another version ({first_line(error)})",
                remedy="write the file again with this version of torch",
            ) from error
        if "forward" not in scripted._method_names():
            raise LoadError(f"{match.source} is TorchScript without a forward method")
        module = mirror(scripted, Program(unit))
        note = "TorchScript interpreted operator by operator, with live parameters"
        return LoadedModel(
            module=module,
            source=match.source,
            format=match.format,
            trusted=options.trust_pickle,
            notes=(note,),
        )


def _refuse_outside(probe: Probe) -> None:
    for record in probe.records:
        if record.startswith("code/") and record.endswith(".py"):
            found = _OUTSIDE.search(probe.read(record).decode("utf-8", "replace"))
            if found:
                raise UnsafePickle(
                    f"{probe.path} is TorchScript whose code calls {found[1]}; nothing was executed",
                    remedy="save model.state_dict() and pass --model REF, or, only if you trust it, --trust-pickle",
                )
