"""What was seen of a solve -> the problem and its solution."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dynstab.core.estimate import CONVERGED
from dynstab.linear.runge_kutta import Tableau, stage_times
from dynstab.systems.flow_gradients import gradients
from dynstab.systems.flow_methods import FIXED, is_known, tableau_of
from dynstab.systems.flow_problem import Problem, Solution, SolvedStep, ended, solve
from dynstab.systems.flow_watch import Seen


def problem_of(seen: Seen) -> tuple[Problem, Solution]:
    """A watched solve as a problem with its solution."""
    tableau = tableau_of(seen.method)
    adaptive = seen.method not in FIXED
    notes = []
    own = not adaptive or is_known(seen.method)
    if not own:
        notes.append(f"{seen.method} has no steps of its own to linearise: solved again by dopri5 at its tolerances")
    elif adaptive and not tableau.first_same_as_last:
        notes.append(
            f"torchdiffeq's {seen.method} starts a step with the last slope of the step before; here it starts with "
            "that of its state"
        )
    if seen.event:
        notes.append("an event ends the interval: its time is held, with other inputs it comes at another one")
    source = "torchdiffeq.odeint_adjoint" if seen.adjoint else "torchdiffeq.odeint"
    problem = Problem(
        field=seen.field,
        initial=seen.tensors(seen.initial),
        start=float(seen.times[0]),
        end=float(seen.times[-1]),
        solver=seen.method,
        tableau=tableau,
        adaptive=adaptive,
        rtol=_largest(seen.settings["rtol"]) if adaptive else 0.0,
        atol=_largest(seen.settings["atol"]) if adaptive else 0.0,
        adjoint=seen.adjoint,
        source=source,
        gradients=lambda: gradients(seen),
        own_steps=own,
        notes=tuple(notes),
    )
    if own:
        return problem, _solution(seen, problem)
    answer = None if seen.answer is None else seen.tensors(seen.answer)
    return problem, replace(solve(problem), answer=answer)


def _solution(seen: Seen, problem: Problem) -> Solution:
    """The steps that were accepted, up to the last finite state."""
    steps: list[SolvedStep] = []
    for start, size, state, rejected in seen.accepted:
        if not bool(state.isfinite().all()):
            break
        times = state.new_tensor(_stage_times(seen, problem.tableau, start, size))
        steps.append(SolvedStep(start=start, size=size, state=seen.tensors(state), times=times, rejected=rejected))
    whole = ended(problem, tuple(steps[:-1]), steps[-1] if steps else None)
    broken = len(steps) < len(seen.accepted)
    finite = seen.answer is not None and bool(seen.answer.isfinite().all())
    if finite and not broken:
        last, reached, outcome = seen.tensors(seen.answer), problem.end, CONVERGED  # type: ignore[arg-type]
    else:  # the step that led out of the finite, or that was never finished, is left out
        cut = steps[-1] if steps else None
        last, reached = (cut.state, cut.start) if cut else (problem.initial, problem.start)
        whole = tuple(steps[:-1])
        outcome = f"{seen.failure or 'the state became infinite or NaN'}: stopped at t = {reached:.4g}"
    return Solution(
        steps=whole,
        last=last,
        reached=reached,
        rejected=seen.rejected,
        evaluations=seen.calls,
        outcome=outcome,
        answer=last if outcome == CONVERGED else None,
    )


def _stage_times(seen: Seen, tableau: Tableau, start: float, size: float) -> list[float]:
    """As torchdiffeq takes them: what ends a step is looked at just before, what follows a jump just after."""
    times = torch.tensor(stage_times(tableau, start, size), dtype=seen.initial.dtype)
    inwards = start + size
    if seen.method not in FIXED or seen.settings.get("perturb"):
        for i, node in enumerate(tableau.c):
            if node == 1.0:
                times[i] = torch.nextafter(times[i], times.new_tensor(start))
    jumps = seen.settings.get("jump_t")
    after_jump = jumps is not None and bool((torch.as_tensor(jumps).abs() - abs(start)).abs().le(1e-9).any())
    if after_jump or (seen.method in FIXED and seen.settings.get("perturb")):
        times[0] = torch.nextafter(times[0], times.new_tensor(inwards))
    return times.tolist()


def _largest(tolerance: Any) -> float:
    return float(tolerance.max()) if isinstance(tolerance, Tensor) else float(tolerance)
