"""From two readings to one word: stable, exploding, vanishing, mixed or inconclusive."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from dynstab.core.estimate import CONVERGED
from dynstab.core.time_dynamics import FixedPoint
from dynstab.core.training_dynamics import TrainingDynamics
from dynstab.diagnostics.facts import Facts, blows_up, finite, first_broken_state, last_broken_derivative
from dynstab.diagnostics.readings import Reading, gradient_reading, signal_reading
from dynstab.diagnostics.thresholds import HEALTHY
from dynstab.diagnostics.training_reading import training_calm, training_trouble
from dynstab.diagnostics.words import change, magnitude, number

Kind = Literal["stable", "exploding", "vanishing", "mixed", "inconclusive"]
_KINDS: dict[int, Kind] = {1: "exploding", -1: "vanishing"}


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A kind, the sentence that gives its reason, and the readings that decided, gradients first."""

    kind: Kind
    reason: str
    readings: tuple[Reading, ...] = ()


def judge(facts: Facts) -> Judgement:
    """The kind of a system; whatever makes the numbers meaningless is asked first."""
    obstacle = _obstacle(facts)
    if obstacle is not None:
        return obstacle
    if facts.rest is not None and facts.attracted:
        return _at_rest(facts.rest)
    if facts.cycle:
        return Judgement(kind="stable", reason=f"The states {facts.cycle}, which attracts: small deviations die out.")
    if facts.measurements.training is not None:
        return _of_training(facts, facts.measurements.training)
    gradient, signal = gradient_reading(facts), signal_reading(facts)
    readings = tuple(reading for reading in (gradient, signal) if reading is not None)
    troubled = tuple(reading for reading in readings if reading.trouble)
    if troubled:
        found = _trouble(facts, troubled)
        return found if gradient is None else replace(found, reason=found.reason + _besides(facts, gradient))
    unfinished = _unfinished(facts)
    if unfinished is not None:
        return unfinished
    if gradient is None:
        reason = facts.measurements.network.log_gradient_gain.outcome.rstrip(".")
        return Judgement(kind="inconclusive", reason=f"No gradient gain was measured: {reason}.", readings=readings)
    for reading in readings:
        if (reading.beyond and not reading.significant) or reading.standard_error > HEALTHY:
            return Judgement(kind="inconclusive", reason=_undecided(reading), readings=(reading,))
    return Judgement(kind="stable", reason=_stable(facts, gradient, signal), readings=readings)


def _obstacle(facts: Facts) -> Judgement | None:
    """Why no verdict can rest on the gains: nothing there, not the model, or not numbers."""
    if not facts.system.steps and first_broken_state(facts) is None:
        nothing = Judgement(kind="inconclusive", reason="There is nothing to analyse: the system has no step.")
        return _unfinished(facts) or nothing
    if facts.failed_checks and not facts.linearised_otherwise:
        names = ", ".join(check.check for check in facts.failed_checks)
        reason = f"The capture failed its verification ({names}): the numbers may describe another function."
        return Judgement(kind="inconclusive", reason=reason)
    if first_broken_state(facts) is not None:
        return _broken(facts)
    gain = facts.measurements.network.log_gradient_gain.value
    step = last_broken_derivative(facts)
    if step is not None or (gain is not None and math.isnan(gain)):
        if blows_up(facts):
            return _unfinished(facts)
        place = "the gradient" if step is None else f"the derivative of {facts.place(step)}"
        return Judgement(kind="inconclusive", reason=f"All states are finite, but {place} is not.")
    return None


def _unfinished(facts: Facts) -> Judgement | None:
    """A differential equation of which only a beginning was solved."""
    flow = facts.measurements.flow
    if flow is None or flow.outcome == CONVERGED:
        return None
    reason = f"The differential equation was not solved to its end ({flow.outcome}): the rest is unknown."
    return Judgement(kind="inconclusive", reason=reason)


def _at_rest(point: FixedPoint) -> Judgement:
    """An iteration that converges: what vanishes there is the memory of where it began."""
    radius = number(point.spectral_radius.value or 0.0)
    reason = f"The states come to rest, and the fixed point attracts: the spectral radius of the step is {radius}."
    return Judgement(kind="stable", reason=reason)


def _of_training(facts: Facts, training: TrainingDynamics) -> Judgement:
    """A run is judged by its weights and its edge of stability: that deviations die out is what training does."""
    trouble = training_trouble(facts, training)
    if trouble is not None and trouble.passing:
        return Judgement(kind="inconclusive", reason=f"{trouble.sentence}; {trouble.passing}.")
    if trouble is not None:
        return Judgement(kind="exploding", reason=f"{trouble.sentence}.")
    if training.stands == "unknown":
        reason = f"How sharp the loss is beside the optimiser's threshold is not known: {training.sharpness.outcome}."
        return Judgement(kind="inconclusive", reason=reason)
    return Judgement(kind="stable", reason=training_calm(facts, training))


def _broken(facts: Facts) -> Judgement:
    """NaN or infinity: an explosion where the states before it grew towards it, else of unknown cause."""
    state, signal = first_broken_state(facts), signal_reading(facts)
    place = facts.state_name(state.index) if state else "a state"
    if signal is not None and signal.trouble > 0:
        reason = f"Signals explode: they {change(signal.value)}, and then {place} is not finite any more."
        return Judgement(kind="exploding", reason=reason, readings=(signal,))
    before = ", and what lies before it does not explode" if state and state.index else ", the first state"
    reason = f"NaN or infinity appears first in {place}{before}: no gain can be read."
    return Judgement(kind="inconclusive", reason=reason)


def _trouble(facts: Facts, troubled: tuple[Reading, ...]) -> Judgement:
    signs = {reading.trouble for reading in troubled}
    raw = finite(facts.measurements.network.raw_log_gradient_gain)
    first, *others = (_clause(facts, reading) for reading in troubled)
    clauses = "; ".join([first, *(clause[0].lower() + clause[1:] for clause in others)])
    if len(signs) > 1:
        return Judgement(kind="mixed", reason=f"{clauses}.", readings=troubled)
    gradient = troubled[0].measure == "network.log_gradient_gain"
    if gradient and raw is not None and abs(raw) > HEALTHY and raw * troubled[0].value < 0:
        reason = f"{clauses}; without the rescaling by the states they {change(raw)}, which contradicts it."
        return Judgement(kind="mixed", reason=reason, readings=troubled)
    return Judgement(kind=_KINDS[troubled[0].trouble], reason=f"{clauses}.", readings=troubled)


def _besides(facts: Facts, gradient: Reading) -> str:
    """A gradient that is healthy only without a stem or a head: which one that is should be told."""
    if gradient.trouble or not gradient.ends:
        return ""
    return f" Gradients change by a factor {magnitude(gradient.value)} over {facts.depth} steps{gradient.without_ends}."


def _clause(facts: Facts, reading: Reading) -> str:
    verb = "explode" if reading.trouble > 0 else "vanish"
    if reading.measure == "network.log_gradient_gain":
        way = f"Gradients {verb}: they {change(reading.value)} {facts.way_back}"
        way += reading.without_ends
        return way + reading.at_rate(facts.depth) + reading.refilled
    end = "the last state" if reading.state is None else facts.state_name(reading.state)
    steps = facts.depth if reading.state is None else sum(index < reading.state for index in reading.profile)
    return f"Signals {verb}: they {change(reading.value)} from the first state to {end}{reading.at_rate(steps)}"


def _undecided(reading: Reading) -> str:
    what = "Gradients" if reading.measure == "network.log_gradient_gain" else "Signals"
    if not reading.beyond:
        return f"{what} are measured to {number(reading.standard_error)} nat only, too coarse for a verdict."
    chance = f"finite width alone gives {number(reading.null)} nat give or take {number(reading.null_spread)}"
    doubt = f"the standard error is {number(reading.standard_error)} nat and {chance}"
    return f"{what} {change(reading.value)}, but {doubt}: {number(reading.sigmas)} standard errors are no evidence."


def _stable(facts: Facts, gradient: Reading, signal: Reading | None) -> str:
    over = f"over {facts.depth} step{'s' if facts.depth != 1 else ''}"
    backward = f"the gradient changes by a factor {magnitude(gradient.value)} {over}{gradient.without_ends}"
    if signal is None:
        return f"Gradients keep their size: {backward}."
    built_for = ", slower than exponentially, as adding residual branches does" if signal.tolerated else ""
    until = f" up to state {signal.state}" if signal.state not in (None, facts.depth) else ""
    return (
        f"Gradients and signals keep their size: {backward}, the signal by a factor "
        f"{magnitude(signal.value)}{until}{built_for if signal.beyond else ''}."
    )
