"""A differential equation: the solver's way, the field along it, and what is lost between equation and numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator

from dynstab.core.estimate import CONVERGED, Estimate
from dynstab.core.flow_dynamics import FlowDynamics, SolverStep
from dynstab.core.report import Report
from dynstab.render.numbers import number, plural
from dynstab.render.topics import Topic, TopicTable

ORDER = 20
_ROWS = 8
_EXPONENTS = 4


def topic(report: Report) -> Topic | None:
    """The chapter of a flow; None for others."""
    flow = report.measurements.flow
    if flow is None:
        return None
    return Topic(
        title="Flow",
        remark=_remark(flow),
        facts=tuple(_facts(flow)),
        remarks=tuple(_remarks(flow)),
        tables=tuple(_tables(flow)),
        charts=("flow_stability", "flow_steps"),
    )


def _remark(flow: FlowDynamics) -> str:
    where = f"t = {flow.start:.3g} to {flow.end:.3g}"
    tolerance = f" at rtol {flow.rtol:g}, atol {flow.atol:g}" if flow.rtol and flow.atol else ""
    return f"x' = f(t, x), {where}, by {flow.solver} of order {flow.order}{tolerance}"


def _facts(flow: FlowDynamics) -> Iterator[tuple[str, Estimate, str]]:
    for rank, exponent in enumerate(flow.exponents[:_EXPONENTS], start=1):
        yield f"finite-time exponent {rank}", exponent, "nat/time"
    yield "log-norm bound of ln σ₁", flow.log_norm_bound, "nat"
    yield "∫ trace dt", flow.trace_integral, "nat"
    yield "its distance from ln |det J|", flow.determinant_gap, "nat"
    yield "fastest decay over the interval", flow.stiffness, ""
    yield "stiffness ratio", flow.stiffness_ratio, ""
    yield "growth by the solver, |R(hλ)|", _most(flow.steps, "amplification"), "a step"
    yield "same, modes that do not grow", _most(flow.steps, "neutral_amplification"), "a step"
    yield "error of the solution", flow.solution_error, "of its norm"
    yield "error of the way back", flow.reversal_error, "of the first state"
    yield "gap of the adjoint's gradient", flow.adjoint_gap, "of the solver's"


def _most(steps: tuple[SolverStep, ...], name: str) -> Estimate:
    found: list[Estimate] = [getattr(step, name) for step in steps]
    measured = [each for each in found if each.value is not None and math.isfinite(each.value)]
    if measured:
        return max(measured, key=lambda each: each.value or 0.0)
    return found[0] if found else Estimate.unmeasured("no step was accepted")


def _remarks(flow: FlowDynamics) -> Iterator[tuple[str, str]]:
    yield "solver", f"{plural(flow.accepted, 'step')}, {flow.rejected} rejected, {flow.evaluations} calls of the field"
    if flow.outcome != CONVERGED:
        yield "outcome", flow.outcome
    if flow.exponents:
        yield "exponents", "of the solver's map; log-norm bound and trace are those of the equation"
    if flow.source != "dynstab":  # a field by itself says nothing of how it is trained
        yield "trained by", "the adjoint equation" if flow.adjoint else "backpropagation through the solver"


def _tables(flow: FlowDynamics) -> Iterator[TopicTable]:
    if not flow.steps:
        return
    pace = -(-len(flow.steps) // _ROWS)
    shown = flow.steps[::pace]
    which = f"one step in {pace}" if pace > 1 else "each step"
    title = f"The field at the start of {which}: mean over inputs, worst for λ and R"
    yield TopicTable(
        title=title,
        heads=("t", "h", "rejected", "error", "max Re λ", "μ₂(A)", "trace A", "|R(hλ)|"),
        rows=tuple(_row(step) for step in shown),
    )


def _row(step: SolverStep) -> tuple[str | Estimate, ...]:
    return (
        number(step.time),
        number(step.size),
        str(step.rejected),
        step.local_error,
        step.abscissa,
        step.logarithmic_norm,
        step.trace,
        step.amplification,
    )
