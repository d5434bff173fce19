"""What the two rules on signals share: the size of the states, read in both directions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from dynstab.core.flag import Severity
from dynstab.diagnostics.advice import place_of
from dynstab.diagnostics.facts import Facts
from dynstab.diagnostics.readings import Reading, signal_reading
from dynstab.diagnostics.rule import Finding
from dynstab.diagnostics.words import change


def signal_finding(
    facts: Facts, *, sign: int, advice: Callable[[Facts, Reading], tuple[str, ...]]
) -> Iterator[Finding]:
    """The finding of a signal that grows (sign 1) or shrinks (-1) beyond what is healthy, if it does."""
    reading = signal_reading(facts)
    if reading is None or reading.severity is None or reading.sign != sign:
        return
    stretch = place_of(reading, sign)
    end = "the last state" if reading.state is None else facts.state_name(reading.state)
    steps = _up_to(facts, reading)
    tolerated = ", as adding residual branches does" if reading.severity is Severity.INFO else ""
    yield Finding(
        measure=reading.measure,
        value=reading.value,
        threshold=reading.threshold,
        severity=reading.severity,
        where=None if stretch else "network",
        steps=stretch.steps if stretch else steps,
        message=f"Signals {change(reading.value)} from the first state to {end}"
        f"{reading.at_rate(len(steps))}{tolerated}.",
        evidence={
            "standard_error": reading.standard_error if reading.known_error else None,
            "standard_errors_from_null": reading.sigmas if math.isfinite(reading.sigmas) else None,
            "log_signal_gain": facts.measurements.network.log_signal_gain.value,
            "growth_law": reading.law,
            "samples": reading.samples,
        },
        advice=() if reading.severity is Severity.INFO else advice(facts, reading),
    )


def _up_to(facts: Facts, reading: Reading) -> tuple[int, ...]:
    """The steps before the state at which the signal was read."""
    if reading.state is None:
        return tuple(step.index for step in facts.system.steps)
    return tuple(index for index in sorted(reading.profile) if index < reading.state)
