"""`dynstab inspect`: the states and steps, before anything is measured."""

from __future__ import annotations

from typing import Any

import click

from dynstab.cli.options import config_options, debug_option, target_options


@click.command()
@target_options
@config_options
@debug_option
def command(**options: Any) -> None:
    """Show the states and steps found in TARGET and what an analysis would cost, without measuring."""
    from dynstab.cli.work import inspect_target

    inspect_target(options)
