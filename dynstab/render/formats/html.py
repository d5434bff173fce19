"""A report as one HTML page that needs nothing else: linked charts, tables, the documentation of the rules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dynstab.core.report import Report


def render(report: Report, *, rules: Iterable[Any] = (), assets: str = "inline") -> str:
    """The page, which also reads without a script.

    Args:
        rules: all that were run; the page holds their documentation.
        assets: "inline" puts the charts' script into the page, "shared" refers to a file beside it.
    """
    from dynstab.render.html.document import page

    return page(report, rules=rules, assets=assets)
