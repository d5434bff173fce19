"""`dynstab demo`: two small networks trained on real data, one stable, one exploding, both analysed."""

from __future__ import annotations

from pathlib import Path

import click

from dynstab.cli.options import EFFORTS, debug_option


@click.command()
@click.option("--out", metavar="DIR", default="demo-out", show_default=True, help="Folder for what it writes.")
@click.option("--epochs", type=click.IntRange(min=0), default=10, show_default=True, help="Of training.")
@click.option("--effort", type=EFFORTS, default="standard", show_default=True, help="Of the analyses.")
@debug_option
@click.pass_context
def command(ctx: click.Context, out: str, epochs: int, effort: str) -> None:
    """Train a small stable and a small exploding network on handwritten digits and analyze both files."""
    from dynstab.cli.commands.analyze import command as analyze
    from dynstab.cli.digits import train_and_save

    folder = _folder(out)
    click.echo(f"Training two networks on handwritten digits, {epochs} epochs each ...", err=True)
    for path, accuracy in train_and_save(folder, epochs=epochs):
        arguments = [str(path), "--input", f"@{folder / 'digits.pt'}", "--effort", effort]
        arguments += ["--json", str(path.with_suffix(".json")), "--html", str(path.with_suffix(".html"))]
        click.echo(f"\n$ dynstab analyze {' '.join(arguments)}   # accuracy on unseen digits: {accuracy:.0%}\n")
        with analyze.make_context("analyze", arguments, parent=ctx) as child:
            analyze.invoke(child)
    click.echo(f"\nNetworks, inputs and reports are in {folder}.")
    click.echo(
        f"Open {folder / 'exploding.html'} in a browser, or see one again: dynstab render {folder / 'stable.json'}"
    )


def _folder(out: str) -> Path:
    from dynstab.core.errors import ConfigError

    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        got = f"the folder {out} cannot be made ({error.strerror})"
        raise ConfigError(got, remedy="choose a writable one with --out") from error
    return folder
