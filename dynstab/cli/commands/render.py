"""`dynstab render`: a report or a training run in any format, without the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dynstab.cli.options import debug_option, report_options

if TYPE_CHECKING:
    from dynstab.cli.delivery import Delivery


@click.command()
@click.argument("target", metavar="REPORT.json|RUN")
@report_options
@click.option("--jsonl", metavar="FILE|-", help="Write a run's records there, a JSON object a line; - for stdout.")
@debug_option
@click.pass_context
def command(ctx: click.Context, target: str, jsonl: str | None, **options: Any) -> None:
    """Render a saved report in any format, without its model; or the file of a training run.

    A run has the formats console, html and json, and its records as JSON lines.
    """
    from dynstab.cli.delivery import Delivery, require_folder

    delivery = Delivery.of(options)
    require_folder("jsonl", jsonl)
    if code := _deliver(target, delivery, jsonl):
        ctx.exit(code)


def _deliver(target: str, delivery: Delivery, jsonl: str | None) -> int:
    from dynstab.core.errors import ConfigError
    from dynstab.core.report import Report
    from dynstab.monitor.store import is_run

    if is_run(target):
        from dynstab.cli.runs import render_run

        return render_run(target, delivery, jsonl=jsonl)
    if jsonl is not None:
        raise ConfigError("--jsonl is for the file of a training run", remedy="a report is one object: --json")
    return delivery.deliver(Report.load(target))
