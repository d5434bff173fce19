"""A Lyapunov function along a trajectory that settles at a fixed point."""

from __future__ import annotations

from dynstab.core.report import Report
from dynstab.render.topics import Topic

ORDER = 45


def topic(report: Report) -> Topic | None:
    structure = report.measurements.structure
    found = structure.lyapunov if structure else None
    if found is None:
        return None
    return Topic(
        title="Lyapunov function",
        remark="V = (x − x*)ᵀP(x − x*), x* the last state",
        facts=(
            ("spectral radius at x*", found.spectral_radius, ""),
            ("steps in which V grows", found.violations, ""),
            ("largest growth of V", found.largest_growth, ""),
            ("gain in the metric of P", found.metric_gain, ""),
            ("condition of the metric", found.condition, ""),
        ),
        charts=("lyapunov_function",),
    )
