"""From options to the library's calls: the one place of the command line that loads and measures."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from dynstab.analyze import analyze, inspect
from dynstab.cli.consoles import messages, output
from dynstab.core.config import Config
from dynstab.core.errors import ConfigError
from dynstab.core.report import Report
from dynstab.diagnostics import matching_rules
from dynstab.loading import Inputs, LoadedModel, load, make_inputs
from dynstab.loading.reference import resolve
from dynstab.render.progress import progress_on


def analyze_target(options: dict[str, Any]) -> Report:
    """Load, measure and diagnose what the options of `dynstab analyze` name."""
    config = _config(options)
    for selector in (*config.select, *config.ignore):
        matching_rules(selector)
    # What a model prints is no result.
    with redirect_stdout(sys.stderr):
        loss = _loss(options["loss"])
        loaded, inputs = _loaded(options, config)
        with progress_on(messages()) as progress:
            return analyze(loaded, inputs, config=config, loss=loss, progress=progress)


def report_of(options: dict[str, Any]) -> Report:
    """The report that the target is, or that an analysis of the target gives."""
    path = Path(options["target"])
    if path.is_file() and _is_json(path):
        return Report.load(path)
    return analyze_target({"loss": None, **options})


def _is_json(path: Path) -> bool:
    """No format of a model begins with a brace."""
    with path.open("rb") as file:
        return file.read(64).lstrip().startswith(b"{")


def inspect_target(options: dict[str, Any]) -> None:
    """Load and capture what the options of `dynstab inspect` name, and print what was found."""
    config = _config(options)
    with redirect_stdout(sys.stderr):
        loaded, inputs = _loaded(options, config)
        found = inspect(loaded, inputs, config=config)
    output().print(found)


def _config(options: dict[str, Any]) -> Config:
    """The options that were given; for all others the defaults of `Config` hold."""
    given = {name: options[name] for name in Config.model_fields if options.get(name) not in (None, ())}
    return Config(**given)


def _loaded(options: dict[str, Any], config: Config) -> tuple[LoadedModel, Inputs | None]:
    loaded = load(
        options["target"],
        model=options["model"],
        trust_pickle=options["trust_pickle"],
        allow_globals=options["allow_global"],
    )
    if not options["input"]:
        return loaded, None
    args, kwargs, description = make_inputs(options["input"], seed=config.seed)
    return loaded, Inputs(args=args, kwargs=kwargs, description=description)


def _loss(reference: str | None) -> Callable[..., Any] | None:
    if reference is None:
        return None
    module, colon, name = reference.rpartition(":")
    if not colon:
        raise ConfigError(f"--loss {reference}", expected="package.module:function or path/file.py:function")
    loss = resolve(module, name)
    if not callable(loss):
        raise ConfigError(f"--loss {reference} is {type(loss).__name__}", expected="a function of the model's output")
    return loss
