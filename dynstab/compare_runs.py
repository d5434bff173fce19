"""Training runs side by side: what moved beyond its fluctuation, which findings came and went."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median

from dynstab.compare import ROUNDING, distinct, moved_anywhere
from dynstab.core.comparison import Difference
from dynstab.core.errors import ConfigError
from dynstab.core.estimate import Estimate, Label
from dynstab.core.run import Run
from dynstab.core.run_comparison import RunComparison, RunFlag
from dynstab.core.run_series import Curve, curves

TAIL = 0.1
"""The share of the common training steps, at their end, over which numbers are taken."""

NORMAL = 1.4826
"""A normal distribution's standard deviation over its median absolute deviation."""


def compare_runs(runs: Sequence[Run], names: Sequence[str] = ()) -> RunComparison:
    """Compare runs at the end of the training steps that all of them have.

    Args:
        runs: two or more, in the order of a series. names: one a run; by default the classes of their models.

    Raises:
        ConfigError: fewer than two runs, or as many names as runs are not given.
    """
    if len(runs) < 2:
        raise ConfigError(f"{len(runs)} training run to compare", expected="two or more")
    if names and len(names) != len(runs):
        raise ConfigError(f"{len(names)} names for {len(runs)} runs", expected="one each")
    tail = _tail(runs)
    return RunComparison(
        names=distinct(names or [run.info.model for run in runs]),
        runs=tuple(runs),
        tail=tail,
        parted=_parted(runs),
        curves=_differences([{curve.name: curve for curve in curves(run)} for run in runs], tail),
        groups=_differences([_gradients(run) for run in runs], tail),
        flags=_flags(runs),
    )


def _tail(runs: Sequence[Run]) -> tuple[int, int] | None:
    """The last part of the steps that all runs have; None where there are no common steps."""
    spans = [[record.step for record in (*run.signals, *run.probes)] for run in runs]
    if not all(spans):
        return None
    first, last = max(map(min, spans)), min(map(max, spans))
    return (last - round(TAIL * (last - first)), last) if first <= last else None


def _differences(series: Sequence[Mapping[str, Curve]], tail: tuple[int, int] | None) -> tuple[Difference, ...]:
    """Of every quantity that all runs have."""
    if tail is None:
        return ()
    shared = [name for name in series[0] if all(name in own for own in series)]
    found = [(name, tuple(_at_end(own[name], tail) for own in series)) for name in shared]
    return tuple(
        Difference(quantity=name, values=values, change=_change(values), moved=_moved(values))
        for name, values in found
        if any(value.measured for value in values)
    )


def _at_end(curve: Curve, tail: tuple[int, int]) -> Estimate:
    """The median over the tail and how far single numbers lie from it.

    Where there is none in the tail, the last before stands for it if it still holds there. Of positive numbers that
    distance is taken in logarithms: a curve that grows tenfold over the tail is no reason to doubt that it is a
    thousand times as high as another.
    """
    known = replace(curve, points=tuple(point for point in curve.points if point[0] <= tail[1]))
    if known.now(tail[0]) is None:
        return Estimate.unmeasured("no number in the steps that all runs have")
    values = [value for step, value in known.points if step >= tail[0]] or [known.points[-1][1]]
    # A step that was lost in between stands above all others.
    middle = values[-1] if known.lost is not None else median(math.inf if math.isnan(v) else v for v in values)
    if not math.isfinite(middle):
        since = "at half of the steps" if known.lost is None else f"since step {known.lost}"
        return Estimate(value=middle, method=f"median of {len(values)}", outcome=f"not finite {since}")
    values = [value for value in values if math.isfinite(value)]
    return Estimate(
        value=middle,
        error=_spread(values, middle) if len(values) > 1 else None,
        method=f"median of {len(values)}, error 1.4826 x median absolute deviation",
        label=Label.ESTIMATE,
    )


def _spread(values: Sequence[float], middle: float) -> float:
    if min(values) > 0:
        return NORMAL * middle * median(abs(math.log(value / middle)) for value in values)
    return NORMAL * median(abs(value - middle) for value in values)


def _moved(values: tuple[Estimate, ...]) -> bool | None:
    """As `moved_anywhere`, positive numbers by their ratios; what is finite in one run alone has moved."""
    measured = [value.value for value in values if value.value is not None]
    if len(measured) == len(values) and len(set(map(math.isfinite, measured))) == 2:
        return True
    if len(measured) < len(values) or min(measured) <= 0 or not all(map(math.isfinite, measured)):
        return moved_anywhere(values)
    logs = (Estimate(value=math.log(e.value or 1), error=e.error and e.error / (e.value or 1)) for e in values)
    return moved_anywhere(tuple(logs))


def _change(values: Sequence[Estimate]) -> float | None:
    first, last = values[0].value, values[-1].value
    return last - first if first is not None and last is not None and math.isfinite(last - first) else None


def _gradients(run: Run) -> dict[str, Curve]:
    """The gradient norm of each group, by name."""
    return {
        name: Curve(
            name=name,
            words=name,
            logarithmic=True,
            points=tuple(
                (signal.step, signal.gradient_norm[index])
                for signal in run.signals
                if index < len(signal.gradient_norm)
            ),
        )
        for index, name in enumerate(run.info.groups)
    }


def _parted(runs: Sequence[Run]) -> int | None:
    losses = [{signal.step: signal.loss for signal in run.signals if signal.loss is not None} for run in runs]
    common = sorted(set.intersection(*(set(own) for own in losses)))
    return next((step for step in common if not _same([own[step] for own in losses])), None)


def _same(values: Sequence[float]) -> bool:
    if any(map(math.isnan, values)):
        return all(map(math.isnan, values))
    return all(math.isclose(value, values[0], rel_tol=ROUNDING) for value in values[1:])


def _flags(runs: Sequence[Run]) -> tuple[RunFlag, ...]:
    names = {each.flag.code: each.flag.name for run in runs for each in run.incidents}
    return tuple(_flag(code, names[code], runs) for code in sorted(names))


def _flag(code: str, name: str, runs: Sequence[Run]) -> RunFlag:
    found = [sorted((i for i in run.incidents if i.flag.code == code), key=lambda i: i.step) for run in runs]
    # Of equals the first is the greatest.
    worst = [max(own, key=lambda each: each.flag.severity.rank, default=None) for own in found]
    return RunFlag(
        code=code,
        name=name,
        severities=tuple(each and each.flag.severity for each in worst),
        steps=tuple(each and each.step for each in worst),
        first=tuple(own[0].step if own else None for own in found),
        first_severities=tuple(own[0].flag.severity if own else None for own in found),
    )
