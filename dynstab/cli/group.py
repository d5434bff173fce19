"""A group of commands that are imported when they are named."""

from __future__ import annotations

import pkgutil
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

import click


class LazyGroup(click.Group):
    """The commands of a package: one module each, which holds it as `command`.

    Args:
        package: dotted name of that package; a new module in it is a new command.
    """

    def __init__(self, *args: Any, package: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.package = package

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(module.name for module in pkgutil.iter_modules(import_module(self.package).__path__))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        return import_module(f"{self.package}.{cmd_name}").command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0]
        if self.get_command(ctx, word) is None and not word.startswith("-"):
            ctx.fail(f"No such command '{word}'.{self._remedy(ctx, word)}")
        return super().resolve_command(ctx, args)

    def _remedy(self, ctx: click.Context, word: str) -> str:
        if Path(word).exists():
            return f" To analyze that file: {ctx.command_path} analyze {word}"
        close = get_close_matches(word, self.list_commands(ctx), n=1)
        return f" Did you mean '{close[0]}'?" if close else ""
