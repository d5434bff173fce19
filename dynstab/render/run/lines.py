"""A record in one line, for a log that grows."""

from __future__ import annotations

from dynstab.core.run import Incident, PostMortem, Probe, Signal
from dynstab.core.run_series import PROBE_NUMBERS, SIGNAL_NUMBERS
from dynstab.render.ink import printable
from dynstab.render.numbers import duration, number


def record_line(record: Signal | Probe | Incident | PostMortem) -> str:
    """What a record says, its training step first."""
    return printable(f"step {record.step}: {_said(record)}")


def _said(record: Signal | Probe | Incident | PostMortem) -> str:
    if isinstance(record, Incident):
        flag = record.flag
        return f"{flag.severity.value.upper()} {flag.code} {flag.name} at {flag.where}: {flag.message}"
    if isinstance(record, PostMortem):
        return f"POST-MORTEM {record.reason.rstrip('.')}" + (f", analysed in {record.report}" if record.report else "")
    if isinstance(record, Probe):
        found = [(words, of(record)) for _, words, _, of in PROBE_NUMBERS]
        return ", ".join([f"probe in {duration(record.cost)}", *_numbers(found)])
    return ", ".join(_numbers([(words, of(record)) for _, words, _, of in SIGNAL_NUMBERS])) or "nothing taken"


def _numbers(found: list[tuple[str, float | None]]) -> list[str]:
    return [f"{words} {number(value)}" for words, value in found if value is not None]
