"""The verdict: one word, a few sentences for a person who reads nothing else, and how sure they are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from dynstab.core.flag import Flag, Severity, Verdict
from dynstab.diagnostics.facts import Facts, finite
from dynstab.diagnostics.judgement import Judgement, judge
from dynstab.diagnostics.profiles import worst_stretch
from dynstab.diagnostics.readings import Reading
from dynstab.diagnostics.thresholds import CLAIM_SAMPLES, CLAIM_TANGENTS, HEALTHY, SEVERE, SIGNIFICANCE
from dynstab.diagnostics.words import count, factor, magnitude, number, spans

_IN_THE_HEADLINE = ("DS101", "DS102", "DS201", "DS202", "DS401", "DS711", "DS901", "DS902")
_MANY_DOUBTS = 3


def verdict(facts: Facts, flags: Sequence[Flag] = ()) -> Verdict:
    """What a system's gains come to, how bad it is, where, and how sure.

    The kind rests on the facts alone, so that selecting or ignoring rules does not change it;
    the flags are only mentioned. Confidence is high where nothing speaks against it, medium with
    one or two doubts, low with more and wherever the kind is inconclusive.
    """
    judgement = judge(facts)
    margin = _margin(judgement)
    doubts = tuple(_doubts(facts, judgement, margin))
    confidence = _confidence(judgement, doubts)
    sentences = [judgement.reason, *_where(facts, judgement), *_how_far(judgement, margin)]
    if judgement.readings and doubts:
        sentences.append(f"Confidence is {confidence}: {', '.join(doubts)}.")
    sentences += _also(flags)
    return Verdict(kind=judgement.kind, summary=" ".join(sentences), confidence=confidence, margin=margin)


def _margin(judgement: Judgement) -> float | None:
    """Nat between what decided and the nearest cut, positive inside the verdict; None if inconclusive."""
    readings = judgement.readings
    if judgement.kind == "inconclusive" or not readings:
        return None
    if judgement.kind == "stable":
        return min((SEVERE if reading.tolerated else HEALTHY) - abs(reading.value) for reading in readings)
    beyond = [abs(reading.value) - HEALTHY for reading in readings]
    return min(beyond) if judgement.kind == "mixed" else max(beyond)


def _doubts(facts: Facts, judgement: Judgement, margin: float | None) -> Iterator[str]:
    """What keeps one from being sure, in words."""
    if not facts.verification:
        yield "the capture was not verified"
    if facts.linearised_otherwise:
        yield "the model's own backward differs from the derivative shown"
    if facts.model.fresh_norms:
        layers, do = count(facts.model.fresh_norms, "BatchNorm layer"), "does" if facts.model.fresh_norms == 1 else "do"
        yield f"{layers} that never saw a batch {do} not normalise in eval mode"
    if facts.measurements.partial or facts.interrupted:
        yield "the analysis was cut short"
    if facts.dtype.removeprefix("torch.") in ("float16", "bfloat16"):
        yield f"analysed in {facts.dtype}"
    if not judgement.readings:
        return
    yield from _doubts_of(facts, judgement.readings)
    if _median_disagrees(facts, judgement.readings[0]):
        yield "the median over inputs disagrees with the mean"
    coarse = max(reading.standard_error for reading in judgement.readings)
    if margin is not None and margin < SIGNIFICANCE * coarse:
        yield "the cut lies within four standard errors"


def _doubts_of(facts: Facts, readings: tuple[Reading, ...]) -> Iterator[str]:
    samples = min(reading.samples for reading in readings)
    if facts.measurements.network.batch_coupled and samples == 1:
        yield "the inputs influence each other and count as one"
    elif samples < CLAIM_SAMPLES:
        yield f"{count(samples, 'input')} where {CLAIM_SAMPLES} make a claim"
    if not all(reading.enough_tangents for reading in readings):
        yield f"fewer than {CLAIM_TANGENTS} cotangents an input"
    if not all(reading.known_error for reading in readings):
        yield "no standard error"
    if not all(reading.known_null for reading in readings):
        yield "what finite width alone gives is unknown"


def _median_disagrees(facts: Facts, reading: Reading) -> bool:
    median = finite(facts.measurements.network.median_log_gradient_gain)
    if median is None or reading.measure != "network.log_gradient_gain":
        return False
    return (abs(median - reading.ends) > HEALTHY) != reading.beyond


def _confidence(judgement: Judgement, doubts: tuple[str, ...]) -> str:
    if judgement.kind == "inconclusive" or len(doubts) >= _MANY_DOUBTS:
        return "low"
    return "medium" if doubts else "high"


def _where(facts: Facts, judgement: Judgement) -> list[str]:
    """The worst neighbouring steps by name, of the first reading that is in trouble."""
    if judgement.kind in ("stable", "inconclusive") or not judgement.readings:
        return []
    reading = judgement.readings[0]
    stretch = worst_stretch(reading.profile, sign=reading.sign)
    if stretch is None:
        return []
    if len(stretch.steps) == len(reading.profile):
        return [f"It arises along {facts.through}."]
    first, last = stretch.steps[0], stretch.steps[-1]
    if first == last:
        place, makes = facts.place(first), "makes"
    else:
        place, makes = f"{spans(stretch.steps)}, {facts.name(first)} to {facts.name(last)}", "make"
    share = f", which {makes} {factor(abs(stretch.total))} of it" if math.isfinite(stretch.total) else ""
    return [f"The worst is {place}{share}."]


def _how_far(judgement: Judgement, margin: float | None) -> list[str]:
    if margin is None or not math.isfinite(margin):
        return []
    reading, away = judgement.readings[0], magnitude(margin)
    inputs = count(reading.samples, "input")
    if judgement.kind == "stable":
        return [f"The nearest limit is a factor {away} away, over {inputs}."]
    sure = f" and {number(reading.sigmas)} standard errors from chance" if math.isfinite(reading.sigmas) else ""
    return [f"That is a factor {away} beyond the healthy range{sure}, over {inputs}."]


def _also(flags: Sequence[Flag]) -> list[str]:
    """Further findings that a person should know of, by name, most severe first."""
    further = [f for f in flags if f.code not in _IN_THE_HEADLINE and f.severity is not Severity.INFO]
    if not further:
        return []
    named = (flag.name if flag.where == "network" else f"{flag.name} at {flag.where}" for flag in further)
    return [f"Also flagged: {', '.join(dict.fromkeys(named))}."]
