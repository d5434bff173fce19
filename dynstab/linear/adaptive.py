"""Runge-Kutta steps of the size that an error tolerance allows.

References:
    Hairer, Norsett & Wanner (1993), Solving ordinary differential equations I, II.4.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dynstab.linear.runge_kutta import Field, Tableau, Tensors, advance, combination, stage_times, stages

_SAFETY, _SHRINK, _GROW = 0.9, 0.2, 10.0
_SMALLEST = 1e-12  # of the whole interval


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One step that was tried.

    Attributes:
        start, step: t and h. times: of the stages. state: after it.
        ratio: root mean square of the embedded error over the tolerance; accepted where it is at most 1.
    """

    start: float
    step: float
    times: Tensor
    state: Tensors
    ratio: float

    @property
    def accepted(self) -> bool:
        return math.isfinite(self.ratio) and self.ratio <= 1


@dataclass
class StepControl:
    """The size of the next step.

    Attributes:
        step: to try next, positive. most: attempts in one interval.
        failure: why an interval was left unfinished, empty where none was.
    """

    tableau: Tableau
    rtol: float
    atol: float
    step: float
    most: int = 10_000
    failure: str = field(default="", init=False)

    @torch.no_grad()
    def attempts(self, function: Field, x: Tensors, start: float, end: float) -> Iterator[Attempt]:
        """All attempts from `start` to `end`, in either direction; ends early with `failure` set."""
        sign, span, now, count = math.copysign(1.0, end - start), abs(end - start), start, 0
        while (left := abs(end - now)) > _SMALLEST * span:
            whole = self.step >= left
            attempt = self._try(function, x, now, sign * (left if whole else self.step))
            yield attempt
            count += 1
            if attempt.accepted:
                x, now = attempt.state, end if whole else now + attempt.step
            self._resize(attempt, whole)
            if self.step < _SMALLEST * span or count >= self.most:
                exhausted = count >= self.most
                lost = (
                    "the step size underflowed" if math.isfinite(attempt.ratio) else "the field became infinite or NaN"
                )
                why = f"{count} steps were not enough: stopped" if exhausted else lost
                self.failure = f"{why} at t = {now:.4g}"
                return

    def _try(self, function: Field, x: Tensors, start: float, step: float) -> Attempt:
        kind = {"dtype": x[0].dtype, "device": x[0].device}
        times, length = torch.tensor(stage_times(self.tableau, start, step), **kind), torch.tensor(step, **kind)
        slopes = stages(function, self.tableau, x, times, length)
        after = advance(x, slopes, self.tableau.b, length)
        errors = combination(slopes, self.tableau.error, length)
        ratio = error_ratio(errors, x, after, self.rtol, self.atol)
        return Attempt(start=start, step=step, times=times, state=after, ratio=ratio)

    def _resize(self, attempt: Attempt, whole: bool) -> None:
        ratio = attempt.ratio
        factor = _GROW if ratio == 0 else _SHRINK
        if math.isfinite(ratio) and ratio > 0:
            factor = min(_GROW, max(_SHRINK, _SAFETY * ratio ** (-1 / self.tableau.order)))
        proposal = abs(attempt.step) * factor
        # A last step cut short by the end says nothing against the size that was planned.
        self.step = max(self.step, proposal) if whole and attempt.accepted else proposal


def error_ratio(errors: Tensors, before: Tensors, after: Tensors, rtol: float, atol: float) -> float:
    """Root mean square of the error over atol + rtol max(|x|, |x'|), over all tensors together."""
    parts = [
        (error / (atol + rtol * torch.maximum(x.abs(), y.abs()))).flatten()
        for error, x, y in zip(errors, before, after, strict=True)
    ]
    return float(torch.cat(parts).double().square().mean().sqrt())
