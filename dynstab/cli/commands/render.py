"""`dynstab render`: any format again, without the model."""

from __future__ import annotations

from typing import Any

import click

from dynstab.cli.options import debug_option, report_options


@click.command()
@click.argument("report", metavar="REPORT.json")
@report_options
@debug_option
@click.pass_context
def command(ctx: click.Context, report: str, **options: Any) -> None:
    """Render a saved report in any format, without its model."""
    from dynstab.cli.delivery import Delivery
    from dynstab.core.report import Report

    delivery = Delivery.of(options)
    if code := delivery.deliver(Report.load(report)):
        ctx.exit(code)
