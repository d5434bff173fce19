"""Options that several commands share. Their words are the fields of `Config`; a test holds the two together."""

from __future__ import annotations

import logging
import pkgutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

import dynstab

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

# Found without importing the renderers: help must not wait for them.
FORMATS = sorted(module.name for module in pkgutil.iter_modules([str(Path(dynstab.__path__[0], "render", "formats"))]))
EFFORTS = click.Choice(["quick", "standard", "thorough"])
_DEBUG = "dynstab.debug"


def debugging(ctx: click.Context) -> bool:
    """Was --debug given, before the command or after it?"""
    return ctx.meta.get(_DEBUG, False)


def _enter_debugging(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[_DEBUG] = True
        warnings.simplefilter("default")
        logging.disable(logging.NOTSET)


debug_option = click.option(
    "--debug",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_enter_debugging,
    help="Show tracebacks and other libraries' warnings.",
)


def _words(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """`--select DS1,outlier-step --select DS4` as one tuple."""
    return tuple(word.strip() for value in values for word in value.split(",") if word.strip())


def _all(*options: Decorator) -> Decorator:
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


model_options = _all(
    click.option(
        "--model", metavar="REF", help="Architecture for a file of weights: package.module:factory or file.py:factory."
    ),
    click.option(
        "--input",
        metavar="[NAME=]SPEC",
        multiple=True,
        help="Example input: randn:8,3,32,32, randint:8,16:0..50257, zeros:.., ones:.. or @file.npy|npz|pt|safetensors,"
        " with :dtype at the end if you like. Repeatable. Without it an input is made up, and the report says which.",
    ),
    click.option("--trust-pickle", is_flag=True, help="Let a pickle run the code that it names."),
    click.option(
        "--allow-global", metavar="NAME", multiple=True, help="Let a pickle name this class or function. Repeatable."
    ),
)

target_options = _all(click.argument("target"), model_options)

config_options = _all(
    click.option("-k", type=click.IntRange(min=1), default=8, show_default=True, help="Exponents and singular values."),
    click.option(
        "--effort",
        type=EFFORTS,
        default="standard",
        show_default=True,
        help="How hard to try.",
    ),
    click.option("--samples", type=click.IntRange(min=1), metavar="N", help="Independent inputs."),
    click.option("--seed", type=int, default=0, show_default=True, help="Of every random draw."),
    click.option(
        "--device", metavar="auto|cpu|cuda|cuda:N", default="auto", show_default=True, help="Where to compute."
    ),
    click.option(
        "--dtype",
        type=click.Choice(["float32", "float64", "bfloat16"]),
        help="Of the analysis. Without it the model's own, half precision lifted to float32.",
    ),
    click.option(
        "--system",
        type=click.Choice(["auto", "depth", "time", "flow"]),
        default="auto",
        show_default=True,
        help="What a step is: a block, a time step, a step of the solver.",
    ),
    click.option(
        "--granularity",
        type=click.Choice(["fine", "step", "block"]),
        default="step",
        show_default=True,
        help="Every cut, every residual update, or one step per block.",
    ),
    click.option(
        "--linearisation",
        type=click.Choice(["forward", "backward"]),
        default="forward",
        show_default=True,
        help="Of custom autograd Functions: the derivative of their forward, or what their own backward says.",
    ),
    click.option("--states", metavar="GLOB", multiple=True, help="Module paths that name the states. Repeatable."),
)

rule_options = _all(
    click.option("--select", metavar="CODES", multiple=True, callback=_words, help="Only these rules: DS101,DS2."),
    click.option("--ignore", metavar="CODES", multiple=True, callback=_words, help="All rules but these."),
)

assets_option = click.option(
    "--assets",
    type=click.Choice(["inline", "shared"]),
    default="inline",
    show_default=True,
    help="The charts' script inside each HTML page, or once beside the pages of a folder.",
)

report_options = _all(
    click.option(
        "--format",
        type=click.Choice(FORMATS),
        default="console",
        show_default=True,
        help="Of the report on stdout.",
    ),
    click.option("--json", metavar="FILE|-", help="Write report.json there; - for stdout, in place of --format."),
    click.option("--html", metavar="FILE", help="Write the report as an HTML page there."),
    assets_option,
    click.option("--all-steps", is_flag=True, help="Show every step, unremarkable ones too."),
    click.option(
        "--fail-on",
        metavar="error|warning|CODES",
        help="Exit with 1 on findings of that severity or above, or of these rules.",
    ),
)
