"""A recurrence over time: what becomes of it, what it remembers, whether its directions are apart, where it rests."""

from __future__ import annotations

from collections.abc import Iterator
from math import degrees

from dynstab.core.estimate import CONVERGED, Estimate
from dynstab.core.report import Report
from dynstab.core.time_dynamics import FixedPoint, GateUse, TimeDynamics
from dynstab.render.numbers import plural
from dynstab.render.topics import Topic, TopicTable

ORDER = 10
_FEW = 12


def topic(report: Report) -> Topic | None:
    """The chapter of a system over time; None for others."""
    time = report.measurements.time
    if time is None:
        return None
    return Topic(
        title="Time",
        remark=_remark(time),
        facts=tuple(_facts(time)),
        remarks=tuple(_remarks(time)),
        tables=tuple(_tables(time)),
        charts=("time_convergence", "time_memory", "time_angles", "time_fixed_point"),
    )


def _remark(time: TimeDynamics) -> str:
    drive = "driven by its input" if time.driven else "a map of the state alone"
    settled = f", after {time.discarded} in which it settles" if time.discarded else ""
    return f"{drive}; {plural(time.steps, 'step')}{settled}"


def _facts(time: TimeDynamics) -> Iterator[tuple[str, Estimate, str]]:
    yield "half-life of the gradient", time.half_life, "steps"
    yield "reach of the gradient", time.reach, f"of {time.sequence} steps"
    yield "least angle, growing to shrinking", in_degrees(time.least_angle), "degrees"
    yield "mean of that angle", in_degrees(time.mean_angle), "degrees"
    if time.fixed_point is not None:
        yield from _resting(time.fixed_point)


def _resting(point: FixedPoint) -> Iterator[tuple[str, Estimate, str]]:
    yield "spectral radius at rest", point.spectral_radius, ""
    yield "rate of convergence", point.contraction, "nat/step"
    yield "movement at rest", point.movement, "of its size"


def in_degrees(angle: Estimate) -> Estimate:
    """An angle as people read it."""
    if angle.value is None:
        return angle
    error = None if angle.error is None else degrees(angle.error)
    return angle.model_copy(update={"value": degrees(angle.value), "error": error, "unit": "degrees"})


def _remarks(time: TimeDynamics) -> Iterator[tuple[str, str]]:
    if time.outcome and time.outcome != CONVERGED:
        yield "what became of the states", time.outcome
    if time.fixed_point is not None:
        yield "rests at", time.fixed_point.state
    elif not time.driven and time.outcome == CONVERGED:
        yield "rests at", "nowhere: the states go on moving"
    if time.splitting:
        yield "directions that grow", str(time.splitting)


def _tables(time: TimeDynamics) -> Iterator[TopicTable]:
    if time.gates:
        heads = ("gate", "mean", "shut (< 0.05)", "open (> 0.95)")
        yield TopicTable(
            title="Gates, over inputs, units and the steps looked at",
            heads=heads,
            rows=tuple(_gate(gate) for gate in time.gates[:_FEW]),
        )
    if time.angles:
        rows = tuple((f"{i} and {i + 1}", in_degrees(angle)) for i, angle in enumerate(time.angles[:_FEW], 1))
        yield TopicTable(title="Covariant Lyapunov vectors", heads=("pair", "mean angle (degrees)"), rows=rows)


def _gate(gate: GateUse) -> tuple[str | Estimate, ...]:
    return gate.name, gate.mean, gate.closed, gate.open
