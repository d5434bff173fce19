"""Defaults of the options from `[tool.dynstab]` in the nearest pyproject.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import click

from dynstab.core.errors import ConfigError

# A project's file must not decide which code runs or which file is written.
COMMAND_LINE_ONLY = frozenset({"model", "loss", "trust_pickle", "allow_global", "json", "html", "out"})


def default_map(group: click.Group, ctx: click.Context) -> dict[str, Any]:
    """For each command the defaults that concern it, in the shape of click's `default_map`.

    Raises:
        ConfigError: a file that is not TOML, a name that no command has as an option, or a value it cannot take.
    """
    table, path = _nearest_table(Path.cwd())
    if not table:
        return {}
    values = {key.replace("-", "_"): value for key, value in table.items()}
    options = {name: _settable(group.get_command(ctx, name)) for name in group.list_commands(ctx)}
    _check(values, set().union(*options.values()), path)
    return {
        name: {key: _taken(own[key], values[key], path, ctx) for key in own.keys() & values.keys()}
        for name, own in options.items()
    }


def _nearest_table(folder: Path) -> tuple[dict[str, Any], Path]:
    for place in (folder, *folder.parents):
        path = place / "pyproject.toml"
        if path.is_file():
            tools = _read(path).get("tool", {})
            table = tools.get("dynstab", {}) if isinstance(tools, dict) else {}
            if not isinstance(table, dict):
                raise ConfigError(f"tool.dynstab in {path} is {table!r}", expected="a table, [tool.dynstab]")
            return table, path
    return {}, folder


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error})", expected="TOML") from error


def _settable(command: click.Command | None) -> dict[str, click.Option]:
    options = [option for option in command.params if isinstance(option, click.Option)] if command else []
    return {
        option.name: option
        for option in options
        if option.name and option.expose_value and option.name not in COMMAND_LINE_ONLY
    }


def _taken(option: click.Option, value: Any, path: Path, ctx: click.Context) -> Any:
    """The value in the shape that click wants; told here where it is wrong, since nobody typed it."""
    shaped = [value] if option.multiple and not isinstance(value, list) else value
    try:
        for each in shaped if option.multiple else [shaped]:
            if isinstance(each, list | dict):
                raise click.BadParameter(f"{each} is not one value.")
        option.type_cast_value(ctx, shaped)
    except click.BadParameter as error:
        written = str(option.name).replace("_", "-")
        raise ConfigError(f"[tool.dynstab] in {path} sets '{written}' to a wrong value: {error.message}") from error
    return shaped


def _check(values: dict[str, Any], known: set[str], path: Path) -> None:
    for key in values:
        written = key.replace("_", "-")
        if key in COMMAND_LINE_ONLY:
            raise ConfigError(
                f"[tool.dynstab] in {path} sets '{written}', which decides what code runs or which file is written",
                remedy="give it on the command line",
            )
        if key not in known:
            raise ConfigError(
                f"[tool.dynstab] in {path} sets '{written}', which is no option",
                expected=", ".join(sorted(name.replace("_", "-") for name in known)),
            )
