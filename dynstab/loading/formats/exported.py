"""Exported programs: what torch.export.save writes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from dynstab.core.errors import LoadError, first_line
from dynstab.loading.exported_safety import refuse_unsafe_program
from dynstab.loading.loaded import Inputs, LoadedModel, describe_value
from dynstab.loading.loader import Loader, Match, Options
from dynstab.loading.probe import Probe


class ExportedLoader(Loader):
    """The archive of torch 2.7 and later (`models/*.json`) and the older one (`serialized_*.json`)."""

    def sniff(self, probe: Probe) -> Match | None:
        new = "archive_format" in probe.records and any(
            name.startswith("models/") and name.endswith(".json") for name in probe.records
        )
        old = "serialized_exported_program.json" in probe.records
        return Match(format="exported program", probe=probe) if new or old else None

    def load(self, match: Match, options: Options) -> LoadedModel:
        if not options.trust_pickle:
            refuse_unsafe_program(match.probe)
        try:
            with _quiet():
                program = torch.export.load(match.source)
                module = runnable(program)
        except Exception as error:
            # The format changes between versions of torch and fails with whatever the reader hits first.
            raise LoadError(
                f"{match.source} is an exported program that this torch cannot read ({first_line(error)})",
                remedy=f"export it again with torch {torch.__version__.partition('+')[0]}",
            ) from error
        return LoadedModel(
            module=module,
            source=match.source,
            format=match.format,
            trusted=options.trust_pickle,
            inputs=_example(program),
            notes=("an exported program is fixed in evaluation or training mode as it was exported",),
        )


def runnable(program: torch.export.ExportedProgram) -> nn.Module:
    """The program as a module whose `train` and `eval` do nothing instead of raising."""
    # The guards pin shapes and dtypes of the example; an analysis may lift the dtype.
    module = program.module(check_guards=False)
    for name in ("train", "eval"):
        vars(module).pop(name, None)
    return module


def _example(program: torch.export.ExportedProgram) -> Inputs | None:
    """The inputs with which the program was exported, if the file kept them."""
    example = program.example_inputs
    if not example:
        return None
    args, kwargs = example
    named: list[tuple[str, Any]] = [("", each) for each in args] + list(kwargs.items())
    description = tuple(
        f"{name + '=' if name else ''}{describe_value(each)} (the exported program's own example)"
        for name, each in named
    )
    return Inputs(args=tuple(args), kwargs=dict(kwargs), description=description)


@contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("torch.export")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
