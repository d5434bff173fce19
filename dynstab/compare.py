"""Reports side by side: which numbers moved beyond their errors, which findings came and went."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

from dynstab.core.comparison import Comparison, Difference, FlagPresence, StepMatch
from dynstab.core.errors import ConfigError
from dynstab.core.estimate import Estimate, Label
from dynstab.core.flag import Severity
from dynstab.core.measurements import StepMeasurement
from dynstab.core.report import Report

STANDARD_ERRORS = 2.0
"""How far an estimate may be off, in its standard errors."""

ROUNDING = 1e-6
"""Relative differences up to here are put down to the order of additions."""

Key = tuple[str, int]


def compare(reports: Sequence[Report], names: Sequence[str] = ()) -> Comparison:
    """Compare reports, steps matched by name.

    Args:
        reports: two or more, in the order of a series (epochs, depths, seeds).
        names: one a report; by default the sources of their models.

    Raises:
        ConfigError: fewer than two reports, or as many names as reports are not given.
    """
    if len(reports) < 2:
        raise ConfigError(f"{len(reports)} report to compare", expected="two or more")
    if names and len(names) != len(reports):
        raise ConfigError(f"{len(names)} names for {len(reports)} reports", expected="one each")
    steps = _matched(reports)
    paired = len({(report.system.inputs, report.provenance.seed) for report in reports}) == 1
    return Comparison(
        names=distinct(names or [report.model.source or report.model.class_name for report in reports]),
        reports=tuple(reports),
        steps=steps,
        network=tuple(_differences([dict(_whole(report)) for report in reports], None, paired)),
        differences=tuple(
            difference for row, step in enumerate(steps) for difference in _step_differences(reports, step, row, paired)
        ),
        flags=_flags(reports),
    )


def moved(a: Estimate, b: Estimate, *, paired: bool = True) -> bool | None:
    """Do two numbers differ by more than their errors add up to? None where nobody can tell.

    Args:
        paired: measured at the same inputs. Otherwise the spread over the inputs counts as an error too.
    """
    reach_a, reach_b = _reach(a, paired), _reach(b, paired)
    if a.value is None or b.value is None or reach_a is None or reach_b is None:
        return None
    if math.isnan(a.value) or math.isnan(b.value):
        return None
    if a.value == b.value:
        return False
    if math.isinf(a.value) or math.isinf(b.value):
        return True
    return abs(a.value - b.value) > reach_a + reach_b + ROUNDING * max(abs(a.value), abs(b.value))


def _reach(estimate: Estimate, paired: bool) -> float | None:
    """How far the quantity may lie from its number; None for a bound, which may lie anywhere beyond it."""
    if estimate.label in (Label.LOWER, Label.UPPER, Label.PROBABILISTIC):
        return None
    drawn = 0.0 if paired or not estimate.spread else abs(estimate.spread) / math.sqrt(estimate.samples)
    if estimate.label is Label.ESTIMATE:
        return None if estimate.error is None else STANDARD_ERRORS * max(abs(estimate.error), drawn)
    return abs(estimate.error or 0.0) + STANDARD_ERRORS * drawn


def _whole(report: Report) -> Iterator[tuple[str, Estimate]]:
    network, lyapunov = report.measurements.network, report.measurements.lyapunov
    yield from ((name, value) for name, value in vars(network).items() if isinstance(value, Estimate))
    for name, spectrum in (
        ("leading_qr_exponent", lyapunov.qr),
        ("leading_finite_time_exponent", lyapunov.finite_time),
    ):
        yield name, spectrum[0] if spectrum else Estimate.unmeasured("not measured")


def _step_differences(reports: Sequence[Report], step: StepMatch, row: int, paired: bool) -> Iterator[Difference]:
    """Of a step that every report has."""
    found = [_step(report, index) for report, index in zip(reports, step.indices, strict=True)]
    own = [_estimates(each) for each in found if each is not None]
    return _differences(own if len(own) == len(reports) else [], row, paired)


def _differences(own: list[dict[str, Estimate]], row: int | None, paired: bool) -> Iterator[Difference]:
    """Of every quantity that any report has measured."""
    for name in own[0] if own else ():
        values = tuple(estimates[name] for estimates in own)
        if any(value.measured for value in values):
            yield Difference(
                quantity=name,
                step=row,
                values=values,
                change=_change(values),
                moved=moved_anywhere(values, paired=paired),
            )


def _change(values: tuple[Estimate, ...]) -> float | None:
    first, last = values[0].value, values[-1].value
    if first is None or last is None or not math.isfinite(last - first):
        return None
    return last - first


def moved_anywhere(values: tuple[Estimate, ...], *, paired: bool = True) -> bool | None:
    """Did the number move between any neighbours of a series, or from its first to its last?"""
    pairs = [*pairwise(values), (values[0], values[-1])]
    answers = [moved(a, b, paired=paired) for a, b in pairs]
    if True in answers:
        return True
    return None if None in answers else False


def _step(report: Report, index: int | None) -> StepMeasurement | None:
    return next((step for step in report.measurements.steps if step.index == index), None)


def _estimates(step: StepMeasurement) -> dict[str, Estimate]:
    return {name: value for name, value in vars(step).items() if isinstance(value, Estimate)}


def _matched(reports: Sequence[Report]) -> tuple[StepMatch, ...]:
    """Every step of any report. One that is not in the first stands behind the step that it follows in its own."""
    indices = [_keys(report) for report in reports]
    order = list(indices[0])
    for own in indices[1:]:
        place = 0
        for key in own:
            if key in order:
                place = order.index(key) + 1
            else:
                order.insert(place, key)
                place += 1
    return tuple(StepMatch(name=key[0], indices=tuple(own.get(key) for own in indices)) for key in order)


def _keys(report: Report) -> dict[Key, int]:
    """The index of each step by its name, and by which of the steps of that name it is."""
    seen: Counter[str] = Counter()
    keys: dict[Key, int] = {}
    for step in report.system.steps:
        keys[step.name, seen[step.name]] = step.index
        seen[step.name] += 1
    return keys


def _flags(reports: Sequence[Report]) -> tuple[FlagPresence, ...]:
    names = {flag.code: flag.name for report in reports for flag in report.flags}
    return tuple(
        FlagPresence(code=code, name=names[code], severities=tuple(_worst(report, code) for report in reports))
        for code in sorted(names)
    )


def _worst(report: Report, code: str) -> Severity | None:
    found = [flag.severity for flag in report.flags if flag.code == code]
    return max(found, key=lambda severity: severity.rank, default=None)


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """The names, those that occur twice numbered."""
    counts, seen = Counter(names), Counter()
    result = []
    for name in names:
        seen[name] += 1
        result.append(f"{name} ({seen[name]})" if counts[name] > 1 else name)
    return tuple(result)
