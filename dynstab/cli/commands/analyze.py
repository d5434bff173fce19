"""`dynstab analyze`: measure and report."""

from __future__ import annotations

from typing import Any

import click

from dynstab.cli.options import config_options, debug_option, report_options, rule_options, target_options


@click.command()
@target_options
@config_options
@click.option("--loss", metavar="REF", help="Cotangents from this loss of the output, not isotropic ones.")
@rule_options
@report_options
@debug_option
@click.pass_context
def command(ctx: click.Context, **options: Any) -> None:
    """Measure the stability of TARGET and report.

    TARGET is a file (a pickled module, a checkpoint of weights, TorchScript, .pt2, safetensors), a Hugging
    Face directory, or a reference, package.module:factory or path/file.py:factory, to something that makes
    the module.
    """
    from dynstab.cli.delivery import Delivery
    from dynstab.cli.exits import INTERRUPTED
    from dynstab.cli.work import analyze_target

    delivery = Delivery.of(options)
    report = analyze_target(options)
    code = delivery.deliver(report)
    if report.provenance.interrupted:
        code = INTERRUPTED
    if code:
        ctx.exit(code)
