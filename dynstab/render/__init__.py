"""Report -> text. A renderer formats what is there: it needs neither the model nor torch."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
from collections.abc import Iterable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from dynstab.core.comparison import Comparison
from dynstab.core.errors import ConfigError
from dynstab.core.report import Report
from dynstab.render import formats as _formats

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from rich.console import Console

__all__ = ["figures", "formats", "notebook_html", "print_report", "render", "write_comparison", "write_html"]


def formats() -> list[str]:
    """The names of all formats: each is one module of `dynstab.render.formats`."""
    return sorted(module.name for module in pkgutil.iter_modules(_formats.__path__))


def render(report: Report, format: str = "console", **options: Any) -> str:
    """The report in one of `formats()`.

    Args:
        options: of that format: `width` (console), `all_steps` (console, markdown), `rules` (sarif, junit, html:
            every rule that was run, so that those which stayed silent are listed too), `assets` (html: "inline"
            or "shared").

    Raises:
        ConfigError: no such format, or an option that it does not take.
    """
    write = _module(format).render
    accepted = [name for name in inspect.signature(write).parameters if name != "report"]
    unknown = [name for name in options if name not in accepted]
    if unknown:
        raise ConfigError(
            f"the format {format} has no option {unknown[0]!r}", expected=", ".join(accepted) or "no options"
        )
    return write(report, **options)


def print_report(report: Report, console: Console, all_steps: bool = False) -> None:
    """Print the console format in the console's own width, colours and encoding."""
    from dynstab.render.formats.console import print_report as write

    write(report, console, all_steps=all_steps)


def write_html(
    report: Report, path: str | os.PathLike[str], *, rules: Iterable[Any] = (), assets: str = "inline"
) -> None:
    """Write the HTML page and, for shared assets, the charts' script beside it.

    Args:
        rules: those that were run, with their documentation. assets: "inline" or "shared".

    Raises:
        ConfigError: no such way to ship assets.
        ReportError: a file cannot be written.
    """
    from dynstab.render.html.document import write

    write(render(report, "html", rules=rules, assets=assets), path, assets=assets)


def write_comparison(comparison: Comparison, path: str | os.PathLike[str], *, assets: str = "inline") -> None:
    """Write the HTML page of a comparison.

    Raises:
        ConfigError: no such way to ship assets.
        ReportError: a file cannot be written.
    """
    from dynstab.render.html.comparison import page
    from dynstab.render.html.document import write

    write(page(comparison, assets=assets), path, assets=assets)


def figures(report: Report) -> dict[str, go.Figure]:
    """The interactive charts of a report, by name."""
    from dynstab.render.charts import figures as draw

    return draw(report)


def notebook_html(report: Report) -> str:
    """The verdict and the findings as a piece of HTML for a notebook's cell."""
    from dynstab.render.html.document import fragment

    return fragment(report)


def _module(format: str) -> ModuleType:
    if format not in formats():
        raise ConfigError(f"there is no format {format!r}", expected=f"one of {', '.join(formats())}")
    return importlib.import_module(f"{_formats.__name__}.{format}")
