"""`dynstab watch`: a training run, live in the terminal."""

from __future__ import annotations

import click

from dynstab.cli.options import debug_option


@click.command()
@click.argument("run", metavar="RUN")
@click.option("--once", is_flag=True, help="Print the present state and end.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.05),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks at the file.",
)
@debug_option
def command(run: str, once: bool, interval: float) -> None:
    """Watch the training run whose monitor writes the file RUN, until it is finished.

    Off a terminal, new records are printed a line each.
    """
    from dynstab.cli.runs import watch_run

    watch_run(run, once=once, interval=interval)
