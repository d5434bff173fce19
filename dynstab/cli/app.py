"""The application: finds the commands, and turns whatever goes wrong into one clear message."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator

import click

from dynstab import __version__
from dynstab.cli.defaults import default_map
from dynstab.cli.exits import INTERRUPTED, PIPE_CLOSED, Failure
from dynstab.cli.group import LazyGroup
from dynstab.cli.options import debug_option, debugging
from dynstab.cli.streams import prepare
from dynstab.core.errors import DynstabError


class Application(LazyGroup):
    """The commands behind one door: defaults are read, libraries hushed, failures told in one message."""

    def invoke(self, ctx: click.Context) -> object:
        with _told(ctx), _hushed():
            ctx.default_map = default_map(self, ctx)
            result = super().invoke(ctx)
            # A reader that went away shows when the buffer is written; here it can still be answered.
            sys.stdout.flush()
            return result


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Other libraries' warnings and logs stay out of stderr; --debug lets them through again."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


@contextlib.contextmanager
def _told(ctx: click.Context) -> Iterator[None]:
    """Every way to fail as an exit code and one message; with --debug, the traceback first."""
    try:
        yield
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except KeyboardInterrupt:
        click.echo("Interrupted.", err=True)
        ctx.exit(INTERRUPTED)
    except BrokenPipeError:
        ctx.exit(PIPE_CLOSED)
    except DynstabError as error:
        _show_traceback(ctx)
        raise Failure(str(error)) from None
    except Exception as error:
        _show_traceback(ctx)
        first_line = str(error).strip().partition("\n")[0]
        hint = "" if debugging(ctx) else "; run again with --debug for the traceback"
        raise Failure(f"unexpected {type(error).__name__}: {first_line}{hint}") from None


def _show_traceback(ctx: click.Context) -> None:
    if debugging(ctx):
        traceback.print_exc()


@click.command(
    cls=Application,
    package="dynstab.cli.commands",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@debug_option
def app() -> None:
    """Do signals and gradients explode or vanish through a network, where, and how sure is that?

    \b
    dynstab analyze model.pt
    dynstab analyze package.module:factory --input randn:8,3,32,32
    """


def main() -> None:
    """Run the command line and exit."""
    # Threads that wait sleep: on a machine shared with others, spinning ones made small products ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    prepare()
    app(prog_name="dynstab")
