"""What the two rules on gradient flow share: one number, read in both directions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from dynstab.core.flag import Evidence
from dynstab.diagnostics.advice import place_of
from dynstab.diagnostics.facts import Facts, finite, first_broken_state
from dynstab.diagnostics.readings import Reading, gradient_reading
from dynstab.diagnostics.rule import Finding
from dynstab.diagnostics.words import change


def gradient_finding(
    facts: Facts, *, sign: int, advice: Callable[[Facts, Reading], tuple[str, ...]]
) -> Iterator[Finding]:
    """The finding of a gradient that grows (sign 1) or shrinks (-1) beyond what is healthy, if it does.

    None where a state is not finite: the zeros and infinities that come back through it are no gains.
    """
    if first_broken_state(facts) is not None:
        return
    reading = gradient_reading(facts)
    if reading is None or reading.trouble != sign or (sign < 0 and facts.attracted):
        return
    stretch = place_of(reading, sign)
    yield Finding(
        measure=reading.measure,
        value=reading.value,
        threshold=reading.threshold,
        severity=reading.severity,
        where=None if stretch else "network",
        steps=stretch.steps if stretch else tuple(step.index for step in facts.system.steps),
        message=f"Gradients {change(reading.value)} {facts.way_back}{reading.without_ends}"
        f"{reading.at_rate(facts.depth)}{reading.refilled}.",
        evidence=_evidence(facts, reading),
        advice=advice(facts, reading),
    )


def _evidence(facts: Facts, reading: Reading) -> Evidence:
    network = facts.measurements.network
    return {
        "standard_error": reading.standard_error if reading.known_error else None,
        "null": reading.null if reading.known_null else None,
        "null_spread": reading.null_spread if reading.known_null else None,
        "standard_errors_from_null": reading.sigmas if math.isfinite(reading.sigmas) else None,
        "samples": reading.samples,
        "median_log_gradient_gain": network.median_log_gradient_gain.value,
        "raw_log_gradient_gain": network.raw_log_gradient_gain.value,
        "growth_law": reading.law,
        "leading_exponent_times_depth": leading_growth(facts),
    }


def leading_growth(facts: Facts) -> float | None:
    """lambda_1 L on the relative scale: ln sigma_max of the whole propagator less the growth of the states."""
    exponents = facts.measurements.lyapunov.finite_time
    leading = finite(exponents[0]) if exponents else None
    if leading is None:
        return None
    return leading * facts.depth - (finite(facts.measurements.network.log_signal_gain) or 0.0)
