"""A recurrence as a dynamical system: exponents along the whole sequence, memory, directions, rest points, gates.

The steps that other measures look at one by one are the end of the sequence. Here all of it is walked: a frame
of tangents forth for the exponents, probes back for the memory, and nothing is decomposed at every step.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dynstab.core.estimate import CONVERGED, Estimate, Label
from dynstab.core.time_dynamics import GateUse
from dynstab.estimators.adapters import Transposed
from dynstab.estimators.frame_walk import LONGEST_INTERVAL, FrameWalk
from dynstab.estimators.orthogonal import random_frame
from dynstab.estimators.qr_result import QRExponents
from dynstab.estimators.result import NON_FINITE
from dynstab.linear.operator import LinearOperator
from dynstab.measures.directions import measure_directions
from dynstab.measures.effort import plan_frame
from dynstab.measures.fixed_point import find_fixed_point
from dynstab.measures.memory import measure_memory
from dynstab.measures.survey import Finding, Survey
from dynstab.measures.time_exponents import exponents_of, running
from dynstab.measures.time_states import columns_of, outcome_of, size_growth
from dynstab.systems.time import GATE
from dynstab.systems.trajectory import Trajectory

_DRAW = 11
_SHORT = 20
_SHUT, _OPEN = 0.05, 0.95
_NO_GATE = Estimate.unmeasured("no value of the gate is finite")
_FACTOR_BYTES = 2**28
_TURNED = 500  # steps beyond which a frame is taken to have turned: it misses (ln size) / 2 nat in all, at the most


def measure_time(survey: Survey) -> Iterator[Finding]:
    """Everything in `TimeDynamics`; the exponents and what follows from them take the place of the window's."""
    looked_at = survey.trajectory
    if looked_at.kind != "time" or not looked_at.steps:
        return
    whole = looked_at.whole or looked_at
    steps, discarded = len(whole.steps), _discarded(len(whole.steps))
    columns = columns_of(whole)
    yield Finding("time", 0, {"steps": steps - discarded, "discarded": discarded, "driven": not whole.held})
    yield Finding("time", 0, {"size_growth": size_growth(columns[discarded:])})
    found = _walk(survey, whole, discarded)
    yield Finding("time", 0, {"outcome": outcome_of(columns, found.values[:, 0], whole), **running(found, discarded)})
    yield Finding("lyapunov", 0, exponents_of(survey, found, discarded, _back(survey, whole, found, discarded)))
    yield Finding("time", 0, measure_memory(survey, whole))
    yield Finding("time", 0, measure_directions(survey, whole, found))
    if whole.held:
        yield Finding("time", 0, {"fixed_point": find_fixed_point(looked_at, whole, survey.effort)})
    yield Finding("time", 0, {"gates": _gates(looked_at)})


def _discarded(steps: int) -> int:
    """A fifth, in which states and tangents settle; nothing of a sequence that is too short to lose any."""
    return steps // 5 if steps >= _SHORT else 0


def _walk(survey: Survey, whole: Trajectory, discarded: int) -> QRExponents:
    """A frame of tangents along the whole sequence: all directions where that is affordable, else `k` of them."""
    operators = [step.jacobian for step in whole.steps]
    first, size = operators[0], operators[0].cols
    k = plan_frame(operators, survey.effort, survey.config.k)
    dtype = torch.float32 if first.dtype in (torch.float16, torch.bfloat16) else first.dtype
    frame = random_frame(whole.samples, size, k, seed=survey.seed(_DRAW), dtype=dtype, device=first.device)
    floor = _floor(first)
    settle = FrameWalk(frame, keep_factors=False, floor=floor)
    for operator in operators[:discarded]:
        settle.push(operator)
        survey.tick()
    settle.factorise()
    rest = operators[discarded:]
    walk = FrameWalk(settle.frame, memory_limit=_FACTOR_BYTES, floor=floor, longest=_longest(len(rest)))
    for operator in rest:
        walk.push(operator)
        survey.tick()
    return walk.finish()


def _back(survey: Survey, whole: Trajectory, found: QRExponents, discarded: int) -> QRExponents | None:
    """The last frame pulled back over the same steps, where it holds fewer directions than there are: it has turned
    into its directions twice as far. None where it holds all, or the way is so long that there was time to turn."""
    rest = [step.jacobian for step in whole.steps[discarded:]]
    if found.values.shape[1] == rest[0].cols or len(rest) > _TURNED:
        return None
    walk = FrameWalk(found.frame, keep_factors=False, floor=_floor(rest[0]), longest=_longest(len(rest)))
    for operator in reversed(rest):
        walk.push(Transposed(operator))
        survey.tick()
    return walk.finish()


def _floor(operator: LinearOperator) -> float:
    return 2 * torch.finfo(operator.dtype).eps


def _longest(steps: int) -> int:
    """Between two factorisations: enough of them for standard errors."""
    return max(1, min(LONGEST_INTERVAL, steps // 20))


def _gates(looked_at: Trajectory) -> tuple[GateUse, ...]:
    """How far the gates are saturated, over all steps that are looked at."""
    values: dict[str, list[Tensor]] = {}
    for step in looked_at.steps:
        for activation in step.activations:
            if activation.kind == GATE:
                values.setdefault(activation.name, []).append(activation.output.flatten())
    return tuple(_gate(name, torch.cat(parts).double()) for name, parts in values.items())


def _gate(name: str, values: Tensor) -> GateUse:
    known = values[values.isfinite()]
    missing = len(values) - len(known)
    outcome = f"{NON_FINITE} in {missing} of {len(values)} values, left out" if missing else CONVERGED

    def exact(value: Tensor, method: str) -> Estimate:
        return Estimate(value=float(value), error=0.0, method=method, label=Label.EXACT, outcome=outcome)

    def share(mask: Tensor, words: str) -> Estimate:
        return exact(mask.double().mean(), f"share of values {words}, of {len(known)}")

    if not len(known):
        return GateUse(name=name, closed=_NO_GATE, open=_NO_GATE, mean=_NO_GATE)
    closed, opened = share(known < _SHUT, f"below {_SHUT}"), share(known > _OPEN, f"above {_OPEN}")
    return GateUse(name=name, closed=closed, open=opened, mean=exact(known.mean(), "mean of its values"))
