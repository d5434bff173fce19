"""A report as JSON, which `Report.load` reads back."""

from __future__ import annotations

from dynstab.core.report import Report


def render(report: Report) -> str:
    """The report as JSON text, non-finite numbers as strings."""
    return report.to_json() + "\n"
