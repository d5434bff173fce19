"""Report -> interactive charts, plotly figures that a notebook shows and that the HTML page holds.

One figure a module: its TITLE, what it shows (ABOUT) and `figure(report)`, None where nothing was measured.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from dynstab.core.report import Report

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["ORDER", "chart", "figures"]

ORDER = (
    "depth",
    "singular_values",
    "eigenvalues",
    "density",
    "exponents",
    "gradient_flow",
    "tokens",
    "network",
    "network_flow",
    "time_convergence",
    "time_memory",
    "time_angles",
    "time_fixed_point",
    "lyapunov_function",
    "flow_stability",
    "flow_steps",
)
"""The charts as a page shows them."""


def chart(name: str) -> ModuleType:
    """The module of a chart."""
    return import_module(f"{__name__}.{name}")


def figures(report: Report) -> dict[str, go.Figure]:
    """Every chart that the report has numbers for, by name, in the order of `ORDER`."""
    drawn = {name: chart(name).figure(report) for name in ORDER}
    return {name: figure for name, figure in drawn.items() if figure is not None}
