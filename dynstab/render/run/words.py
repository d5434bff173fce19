"""What is to be said of a run: how it stands, where trouble began."""

from __future__ import annotations

import math
from datetime import datetime

from dynstab.core.flag import Severity
from dynstab.core.run import Incident, PostMortem, Run
from dynstab.core.run_series import Curve, curves
from dynstab.render.ink import printable
from dynstab.render.numbers import MEANINGS, count, duration, number, plural

KINDS = {None: "quiet", Severity.INFO: "quiet", Severity.WARNING: "warned", Severity.ERROR: "failing"}
"""A run in one word, by its most severe finding."""


def severity(run: Run) -> Severity | None:
    """Of the most severe finding; what left a post-mortem is an error."""
    if run.post_mortems:
        return Severity.ERROR
    return max((each.flag.severity for each in run.incidents), key=lambda found: found.rank, default=None)


def kind(run: Run) -> str:
    return KINDS[severity(run)]


def last_step(run: Run) -> int | None:
    """The last training step of which anything is known."""
    records = (run.signals, run.probes, run.incidents, run.post_mortems)
    return max((group[-1].step for group in records if group), default=None)


def seconds(run: Run) -> float:
    """From the begin of the run to its last signal or probe."""
    return max((group[-1].seconds for group in (run.signals, run.probes) if group), default=0.0)


def beginning(run: Run) -> str:
    """Where it began: the first warning or error with its place, and how long it was ahead of the first error."""
    troubles = [each for each in run.incidents if each.flag.severity is not Severity.INFO]
    if not troubles:
        return _nothing(run)
    first = troubles[0]
    sentence = f"It began at step {first.step}: {finding(first)}"
    disaster = _disaster(run)
    if disaster is None:
        return f"{sentence}. No error followed."
    step, what = disaster
    lead = step - first.step
    return sentence + (f", {plural(lead, 'step')} before the first {what} at step {step}." if lead > 0 else ".")


def finding(incident: Incident) -> str:
    """Rule and place, in a few words."""
    flag = incident.flag
    where = "" if flag.where in ("", "network", flag.name) else f" at {flag.where}"
    return printable(f"{flag.name}{where} ({flag.code})")


def course(run: Run) -> str:
    """The loss from the first step to the last."""
    loss = next((curve for curve in curves(run) if curve.name == "loss"), None)
    if loss is None:
        return ""
    (first, begin), (last, end) = loss.points[0], loss.points[-1]
    text = f"Loss {number(begin)} at step {first}, {number(end)} at step {last}"
    return text + (f", not finite since step {loss.lost}." if loss.lost is not None else f"{_lowest(loss)}.")


def _lowest(loss: Curve) -> str:
    step, value = min((point for point in loss.points if math.isfinite(point[1])), key=lambda point: point[1])
    return f", lowest {number(value)} at step {step}"


def subject(run: Run) -> str:
    """What was trained, where, since when."""
    info = run.info
    every = [f"probed every {plural(info.every, 'step')}" if info.every else "not probed"]
    parts = [info.model, f"{count(info.parameters)} parameters", info.optimizer or "", f"{info.device} {info.dtype}"]
    return " · ".join(printable(part) for part in [*parts, *every, f"begun {begun(run)}"] if part)


def state(run: Run) -> str:
    """Finished or not, how far, how fast and at what price."""
    step = last_step(run)
    if step is None:
        return "No record yet."
    spent = seconds(run)
    parts = [
        "finished" if run.finished else "not finished",
        f"step {step} after {duration(spent)}",
        rate(run),
        probing(run),
    ]
    return " · ".join(part for part in parts if part)


def rate(run: Run, over: int = 100) -> str:
    """Training steps a second over the last signals."""
    recent = run.signals[-over:]
    if len(recent) < 2 or recent[-1].seconds <= recent[0].seconds:
        return ""
    return f"{number((recent[-1].step - recent[0].step) / (recent[-1].seconds - recent[0].seconds))} steps/s"


def probing(run: Run) -> str:
    """What a probe costs, and all of them as a share of the time."""
    if not run.probes:
        return ""
    costs = sorted(probe.cost for probe in run.probes)
    share = f", {100 * sum(costs) / seconds(run):.1f}% of the time" if seconds(run) > 0 else ""
    return f"a probe takes {duration(costs[len(costs) // 2])}{share}"


def qualities(run: Run) -> list[tuple[str, str]]:
    """What the numbers of the probes are, and what they are not."""
    exponents = any(probe.exponents for probe in run.probes)
    gains = any(probe.step_gains or probe.gradient_flow for probe in run.probes)
    labels = dict.fromkeys(
        probe.sharpness.label for probe in run.probes if probe.sharpness and probe.sharpness.measured
    )
    entries = (
        (exponents, "exponents", "lower bounds from directions that are followed from probe to probe; that a probe "
         "converged speaks of the first one, the true values of the others may lie well above"),
        (gains, "gains and gradient flow", "estimates from two random directions, the same at every probe, without an "
         "error of their own: made to be compared with each other; dynstab analyze gives them with their errors"),
        (bool(labels), "sharpness", "; ".join(MEANINGS[label] for label in labels)),
    )  # fmt: skip
    return [(name, text) for there, name, text in entries if there]


def begun(run: Run) -> str:
    """The time of the run's begin as a person writes it."""
    try:
        return datetime.fromisoformat(run.info.created).strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return run.info.created


def _nothing(run: Run) -> str:
    step = last_step(run)
    return "Nothing was recorded yet." if step is None else f"No warning up to step {step}."


def _disaster(run: Run) -> tuple[int, str] | None:
    """The first error, or the first post-mortem where that came earlier, with the rule that it is due to."""
    errors = [(each.step, f"error, {each.flag.name}") for each in run.incidents if each.flag.severity is Severity.ERROR]
    errors += [(each.step, f"post-mortem{_cause(run, each)}") for each in run.post_mortems]
    return min(errors, key=lambda each: each[0], default=None)


def _cause(run: Run, post_mortem: PostMortem) -> str:
    """The finding that the post-mortem names as its reason."""
    names = [each.flag.name for each in run.incidents if each.step == post_mortem.step]
    return next((f", for {name}" for name in names if name in post_mortem.reason), "")
