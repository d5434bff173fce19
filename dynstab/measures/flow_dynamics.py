"""A differential equation along its solver's steps: the field, the solver, and what is lost on the way.

References:
    Chen et al. (2018), Neural ordinary differential equations; Gholami, Keutzer & Biros (2019), ANODE (the adjoint
    and reversal); Hairer & Wanner (1996), Solving ordinary differential equations II.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor

from dynstab.core.estimate import CONVERGED, Estimate, Label
from dynstab.core.flow_dynamics import SolverStep
from dynstab.linear.runge_kutta import Tensors
from dynstab.measures.aggregate import summarise
from dynstab.measures.flow_field import Field, FieldSurvey, describe, field_at, integral, missing
from dynstab.measures.flow_solution import reversal_error, solution_error
from dynstab.measures.survey import Finding, Survey
from dynstab.systems.flow_points import FieldPoint
from dynstab.systems.flow_trajectory import FlowTrajectory

_DRAW = 31


def measure_flow(survey: Survey) -> Iterator[Finding]:
    """Everything in `FlowDynamics`."""
    trajectory = survey.trajectory
    if not isinstance(trajectory, FlowTrajectory):
        return
    yield Finding("flow", 0, _solver(trajectory))
    yield Finding("flow", 0, {"adjoint_gap": _adjoint_gap(trajectory)})
    if not trajectory.points:  # no step was accepted: the solver alone can be told of
        yield Finding("flow", 0, _losses(trajectory))
        return
    how = FieldSurvey.of(trajectory.points, survey.effort, survey.seed(_DRAW))
    sign = -1.0 if trajectory.problem.end < trajectory.problem.start else 1.0
    fields = []
    for index, point in enumerate(trajectory.points):
        fields.append(field_at(point.jacobian, index, sign, how))
        survey.tick()
    steps = tuple(
        _step(i, p, f, trajectory, how) for i, (p, f) in enumerate(zip(trajectory.points, fields, strict=True))
    )
    yield Finding("flow", 0, {"steps": steps, **_stiffness(steps, trajectory)})
    yield Finding("flow", 0, _integrals(survey, trajectory, fields, sign, how))
    yield Finding("flow", 0, {"exponents": _exponents(survey, trajectory)})
    yield Finding("flow", 0, _losses(trajectory))


def _solver(trajectory: FlowTrajectory) -> dict[str, Any]:
    problem, solution = trajectory.problem, trajectory.solution
    return {
        "solver": problem.solver,
        "order": problem.tableau.order,
        "adaptive": problem.adaptive,
        "source": problem.source,
        "start": problem.start,
        "end": problem.end,
        "reached": solution.reached,
        "outcome": solution.outcome,
        "accepted": len(solution.steps),
        "rejected": solution.rejected,
        "evaluations": solution.evaluations,
        "rtol": problem.rtol if problem.adaptive else None,
        "atol": problem.atol if problem.adaptive else None,
        "adjoint": problem.adjoint,
        "stability_polynomial": problem.tableau.polynomial,
        "real_limit": problem.tableau.real_limit(),
    }


def _step(index: int, point: FieldPoint, field: Field, trajectory: FlowTrajectory, how: FieldSurvey) -> SolverStep:
    step, tableau = point.step, trajectory.problem.tableau
    means = "embedded pair" if tableau.error else "Richardson, two half steps"
    local = Estimate(value=point.local_error, method=means, label=Label.ESTIMATE)
    ratio = Estimate.unmeasured("the solver's steps are fixed")
    if point.ratio is not None:
        ratio = Estimate(value=point.ratio, method="embedded pair, root mean square", label=Label.ESTIMATE)
    fields = missing(field, how) | describe(field, abs(step.size), tableau)
    return SolverStep(
        index=index,
        time=step.start,
        size=step.size,
        rejected=step.rejected,
        local_error=local,
        tolerance_ratio=ratio,
        **fields,  # type: ignore[arg-type]
    )


def _stiffness(steps: tuple[SolverStep, ...], trajectory: FlowTrajectory) -> dict[str, Estimate]:
    """The largest ratio of decay rates along the way, and the integral of the fastest decay.

    A rate that is reached for a moment, on the way into a singularity, counts for that moment only.
    """
    fastest = [step.fastest_decay for step in steps if step.fastest_decay.value is not None]
    if not fastest:
        nothing = Estimate.unmeasured("no mode of the field decays")
        return {"stiffness_ratio": nothing, "stiffness": nothing}
    worst = max(fastest, key=lambda each: each.value or 0.0)
    ratios = [
        step.fastest_decay.value / step.slowest_decay.value
        for step in steps
        if step.fastest_decay.value and step.slowest_decay.value
    ]
    looked_at = [step for step in steps if step.abscissa.measured]
    ends = [*(step.time for step in looked_at[1:]), trajectory.solution.reached]
    spent = sum((s.fastest_decay.value or 0.0) * abs(end - s.time) for s, end in zip(looked_at, ends, strict=True))
    update = {"value": spent, "unit": "1"}
    method = {"value": max(ratios), "unit": "1"}
    return {"stiffness_ratio": worst.model_copy(update=method), "stiffness": worst.model_copy(update=update)}


def _integrals(
    survey: Survey, trajectory: FlowTrajectory, fields: list[Field], sign: float, how: FieldSurvey
) -> dict[str, Estimate]:
    """The integrals of the trace and of the logarithmic norm along the solution."""
    times = [*(point.step.start for point in trajectory.points), trajectory.solution.reached]
    sizes = [abs(after - before) for before, after in pairwise(times)]
    middles = []
    for index, point in enumerate(trajectory.points):
        middles.append(Field() if point.middle is None else field_at(point.middle, index, sign, how))
        survey.tick()
    end = field_at(trajectory.final, 0, sign, how)
    traces = integral(sizes, [f.trace for f in fields], [f.trace for f in middles], end.trace)
    norms = integral(sizes, [f.log_norm for f in fields], [f.log_norm for f in middles], end.log_norm)
    volume = Estimate.unmeasured(traces) if isinstance(traces, str) else summarise(traces, unit="nat")
    bound = Estimate.unmeasured(norms) if isinstance(norms, str) else summarise(norms, unit="nat")
    determinant = survey.estimate("network", 0, "log_determinant")
    if determinant is not None and determinant.label is Label.UPPER:  # a bound has no gap
        determinant = None
    gap = Estimate.unmeasured("ln |det| of the solver's map or the trace was not measured", unit="nat")
    comparable = determinant is not None and how.inputs == trajectory.samples and how.dense
    if comparable and determinant is not None and determinant.value is not None and volume.value is not None:
        method = f"{determinant.method} against {volume.method}"
        gap = Estimate(value=abs(determinant.value - volume.value), error=volume.error, unit="nat", method=method)
    return {"trace_integral": volume, "log_norm_bound": bound, "determinant_gap": gap}


def _exponents(survey: Survey, trajectory: FlowTrajectory) -> tuple[Estimate, ...]:
    """Finite-time exponents per unit time, from those per step."""
    duration = abs(trajectory.solution.reached - trajectory.problem.start)
    found = survey.found.get(("lyapunov", 0), {}).get("finite_time", ())
    rate = len(trajectory.steps) / duration
    return tuple(_scaled(each, rate) for each in found)


def _scaled(estimate: Estimate, rate: float) -> Estimate:
    numbers = {name: getattr(estimate, name) for name in ("value", "error", "spread")}
    scaled = {name: None if number is None else rate * number for name, number in numbers.items()}
    return estimate.model_copy(update={**scaled, "unit": "nat/time"})


def _adjoint_gap(trajectory: FlowTrajectory) -> Estimate:
    if isinstance(trajectory.gradients, str):
        return Estimate.unmeasured(trajectory.gradients)
    adjoint, through = (_flat(tuple(gradients)) for gradients in trajectory.gradients)
    size = float(through.norm())
    if size == 0 or not isfinite(size):
        return Estimate.unmeasured(f"the gradient through the solver is {'not finite' if size else 'zero'}")
    gap = float((adjoint - through).norm()) / size
    method = "odeint_adjoint against autograd through the solver, random linear form of the last state"
    return Estimate(value=gap if isfinite(gap) else inf, method=method, label=Label.ESTIMATE)


def _flat(tensors: Tensors) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors]).double()


def _losses(trajectory: FlowTrajectory) -> dict[str, Estimate]:
    if trajectory.solution.outcome != CONVERGED:
        reason = Estimate.unmeasured("the equation was not solved to its end")
        return {"solution_error": reason, "reversal_error": reason}
    return trajectory.source.visit(
        lambda problem, solution: {
            "solution_error": solution_error(problem, solution),
            "reversal_error": reversal_error(problem, solution),
        }
    )
