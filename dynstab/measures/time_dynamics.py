"""A recurrence as a dynamical system: exponents along the whole sequence, memory, directions, rest points, gates.

The steps that other measures look at one by one are the end of the sequence. Here all of it is walked: a frame
of tangents forth for the exponents, probes back for the memory, and nothing is decomposed at every step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import isfinite

import torch
from torch import Tensor

from dynstab.core.estimate import CONVERGED, Estimate, Label
from dynstab.core.time_dynamics import GateUse
from dynstab.estimators.dimension import expansion_sum, kaplan_yorke_dimension
from dynstab.estimators.frame_walk import LONGEST_INTERVAL, FrameWalk
from dynstab.estimators.orthogonal import random_frame
from dynstab.estimators.qr_result import QRExponents
from dynstab.estimators.recurrence import Recurrence
from dynstab.measures.aggregate import summarise
from dynstab.measures.directions import measure_directions
from dynstab.measures.effort import plan_frame
from dynstab.measures.fixed_point import find_fixed_point
from dynstab.measures.memory import measure_memory
from dynstab.measures.survey import Finding, Survey
from dynstab.systems.time import GATE
from dynstab.systems.trajectory import Trajectory

_DRAW = 11
_UNIT = "nat/step"
_SHORT = 20
_RUNNING = 60
_SHOWN = 3
_SHUT, _OPEN = 0.05, 0.95


def measure_time(survey: Survey) -> Iterator[Finding]:
    """Everything in `TimeDynamics`; the exponents and what follows from them take the place of the window's."""
    looked_at = survey.trajectory
    if looked_at.kind != "time" or not looked_at.steps:
        return
    whole = looked_at.whole or looked_at
    steps, discarded = len(whole.steps), _discarded(len(whole.steps))
    outcomes = _outcomes(whole)
    yield Finding("time", 0, {"steps": steps - discarded, "discarded": discarded, "driven": not whole.held})
    found = _walk(survey, whole, discarded)
    yield Finding("time", 0, {"outcome": _outcome(outcomes, found, whole), **_running(found, discarded)})
    yield Finding("lyapunov", 0, _exponents(survey, found, discarded))
    yield Finding("time", 0, measure_memory(survey, whole))
    yield Finding("time", 0, measure_directions(survey, whole, found))
    if whole.held:
        yield Finding("time", 0, {"fixed_point": find_fixed_point(looked_at, whole, survey.effort)})
    yield Finding("time", 0, {"gates": _gates(looked_at)})


def _discarded(steps: int) -> int:
    """A fifth, in which states and tangents settle; nothing of a sequence that is too short to lose any."""
    return steps // 5 if steps >= _SHORT else 0


def _outcomes(whole: Trajectory) -> Recurrence:
    """All inputs watched over all states."""
    columns = [state.layout.flatten(tuple(t[None] for t in state.value))[:, :, 0] for state in whole.states]
    watch = Recurrence(columns[0], len(columns[0]))
    for state in columns[1:]:
        watch.see(state)
    return watch


def _outcome(watch: Recurrence, found: QRExponents, whole: Trajectory) -> str:
    """What became of the states: of a driven recurrence only that they diverged."""
    leading = found.values[:, 0].tolist()
    told = [watch.outcome(value, row) for row, value in enumerate(leading)]
    if not whole.held:
        told = [each if fell else None for each, fell in zip(told, watch.fallen.tolist(), strict=True)]
    counts = {each: told.count(each) for each in dict.fromkeys(told)}
    if list(counts) == [None]:
        return CONVERGED
    if len(counts) == 1:
        return next(iter(counts)) or CONVERGED
    return "; ".join(f"{amount} of {len(told)} inputs: {each or 'go on'}" for each, amount in counts.items())


def _walk(survey: Survey, whole: Trajectory, discarded: int) -> QRExponents:
    """A frame of tangents along the whole sequence: all directions where that is affordable, else `k` of them."""
    operators = [step.jacobian for step in whole.steps]
    first, size = operators[0], operators[0].cols
    k = plan_frame(operators, survey.effort, survey.config.k)
    dtype = torch.float32 if first.dtype in (torch.float16, torch.bfloat16) else first.dtype
    frame = random_frame(whole.samples, size, k, seed=survey.seed(_DRAW), dtype=dtype, device=first.device)
    floor = 2 * torch.finfo(first.dtype).eps
    settle = FrameWalk(frame, keep_factors=False, floor=floor)
    for operator in operators[:discarded]:
        settle.push(operator)
        survey.tick()
    settle.factorise()
    rest = operators[discarded:]
    walk = FrameWalk(
        settle.frame, keep_factors=False, floor=floor, longest=max(1, min(LONGEST_INTERVAL, len(rest) // 20))
    )
    for operator in rest:
        walk.push(operator)
        survey.tick()
    return walk.finish()


def _exponents(survey: Survey, found: QRExponents, discarded: int) -> dict[str, object]:
    full = found.values.shape[1] == survey.trajectory.steps[0].jacobian.cols
    note = f"{found.method}, {discarded} discarded" if discarded else found.method
    result = replace(found, method=note)
    listed = tuple(summarise(result.column(i), unit=_UNIT) for i in range(min(survey.config.k, found.values.shape[1])))
    dimensions = torch.tensor([kaplan_yorke_dimension(row, full=full) for row in found.values], dtype=torch.float64)
    entropies = torch.tensor([expansion_sum(row) for row in found.values], dtype=torch.float64)
    doubt = found.errors.where(found.values > 0, 0.0).sum(dim=1, keepdim=True)
    entropy = summarise(result.with_values(entropies[:, None], doubt), unit=_UNIT)
    if not full and bool((found.values[:, -1] > 0).any()):
        entropy = entropy.model_copy(update={"label": Label.LOWER})
    fields: dict[str, object] = {"qr": listed, "expansion_sum": entropy}
    if bool(dimensions.isnan().any()):
        fields["kaplan_yorke_dimension"] = Estimate.unmeasured("more exponents than were asked for are needed")
    else:
        error = _dimension_error(found)
        dimension = summarise(result.with_values(dimensions[:, None], error))
        fields["kaplan_yorke_dimension"] = dimension.model_copy(update={"method": f"Kaplan-Yorke from {note}"})
    if full and survey.trajectory.whole is not None:
        total = found.logs.sum(dim=2).sum(dim=1) / sum(found.lengths)
        fields["sum"] = summarise(result.with_values(total[:, None], found.errors.sum(dim=1, keepdim=True)), unit=_UNIT)
    return fields


def _dimension_error(found: QRExponents) -> Tensor:
    """Of the dimension, to first order: the error of the partial sum over the exponent that ends it."""
    rows = []
    for values, errors in zip(found.values, found.errors, strict=True):
        sums = values.cumsum(0)
        j = int((sums >= 0).sum())
        inside = float(errors[: j + 1].sum()) if j < len(values) else 0.0
        rows.append(inside / abs(float(values[j])) if j < len(values) and isfinite(float(values[j])) else 0.0)
    return torch.tensor(rows, dtype=torch.float64)[:, None]


def _running(found: QRExponents, discarded: int) -> dict[str, object]:
    """The leading exponents over the first n steps, at some sixty n, mean over inputs."""
    lengths = torch.tensor(found.lengths, dtype=torch.float64).cumsum(0)
    sums = found.logs[:, :, :_SHOWN].cpu().cumsum(dim=1) / lengths[None, :, None]
    pace = max(1, len(lengths) // _RUNNING)
    chosen = sorted({*range(pace - 1, len(lengths), pace), len(lengths) - 1})
    means = sums.mean(dim=0)[chosen]
    return {
        "running_steps": tuple(discarded + int(lengths[i]) for i in chosen),
        "running": tuple(tuple(row) for row in means.tolist()),
    }


def _gates(looked_at: Trajectory) -> tuple[GateUse, ...]:
    """How far the gates are saturated, over all steps that are looked at."""
    values: dict[str, list[Tensor]] = {}
    for step in looked_at.steps:
        for activation in step.activations:
            if activation.kind == GATE:
                values.setdefault(activation.name, []).append(activation.output.flatten())
    return tuple(_gate(name, torch.cat(parts).double()) for name, parts in values.items())


def _gate(name: str, values: Tensor) -> GateUse:
    def share(mask: Tensor, words: str) -> Estimate:
        method = f"share of values {words}, of {len(values)}"
        return Estimate(value=float(mask.double().mean()), error=0.0, method=method, label=Label.EXACT)

    mean = Estimate(value=float(values.mean()), error=0.0, method="mean of its values", label=Label.EXACT)
    closed, opened = share(values < _SHUT, f"below {_SHUT}"), share(values > _OPEN, f"above {_OPEN}")
    return GateUse(name=name, closed=closed, open=opened, mean=mean)
