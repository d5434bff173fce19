"""`dynstab compare`: what moved between reports, between checkpoints of one model, or between training runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from dynstab.cli.options import assets_option, config_options, debug_option, model_options, rule_options

if TYPE_CHECKING:
    from dynstab.core.comparison import Comparison
    from dynstab.core.run_comparison import RunComparison


@click.command()
@click.argument("targets", metavar="A B [C ...]", nargs=-1, required=True)
@click.option("--html", metavar="FILE", help="Write the comparison as an HTML page there.")
@assets_option
@click.option("--json", metavar="FILE|-", help="Write the differences as JSON there; - for stdout.")
@model_options
@config_options
@rule_options
@debug_option
def command(targets: tuple[str, ...], html: str | None, assets: str, json: str | None, **options: Any) -> None:
    """Compare reports: what moved beyond its errors, which findings came and went.

    A, B, ... are report.json files that dynstab wrote. Whatever else they are is analysed first, with the
    same options as in `dynstab analyze`: two checkpoints of one model, before and after training. Steps are
    matched by name. Files of training runs are compared with each other, at the last steps that all have.
    """
    from dynstab.cli.delivery import require_folder
    from dynstab.cli.runs import compare_runs_of
    from dynstab.core.errors import ConfigError

    if len(targets) < 2:
        raise ConfigError(f"{len(targets)} target to compare", expected="two or more")
    require_folder("html", html)
    require_folder("json", json)
    if (runs := compare_runs_of(targets)) is not None:
        from dynstab.render.run.comparison_page import write_run_comparison

        _deliver(runs, write_run_comparison, json=json, html=html, assets=assets)
        return
    # Only now: to compare runs takes no torch.
    from dynstab.cli.work import report_of
    from dynstab.compare import compare
    from dynstab.render import write_comparison

    comparison = compare([report_of({**options, "target": target}) for target in targets], targets)
    _deliver(comparison, write_comparison, json=json, html=html, assets=assets)


def _deliver(
    comparison: Comparison | RunComparison,
    write_page: Callable[..., None],
    *,
    json: str | None,
    html: str | None,
    assets: str,
) -> None:
    from dynstab.cli.consoles import output
    from dynstab.core.files import write_whole

    # Files come first: stdout may be closed or full.
    if json not in (None, "-"):
        write_whole(json, comparison.to_json())
    if html is not None:
        write_page(comparison, html, assets=assets)
    if json == "-":
        click.echo(comparison.to_json())
    else:
        output().print(comparison)
