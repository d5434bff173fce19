"""A record as named numbers: what experiment trackers draw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dynstab.core.run import Incident, PostMortem, Probe, RunInfo, Signal
from dynstab.core.run_series import PROBE_NUMBERS, SIGNAL_NUMBERS
from dynstab.monitor.tables import Record

PREFIX = "dynstab/"


def scalars(record: Record, info: RunInfo) -> dict[str, float]:
    """The numbers of a record by name, each name with `PREFIX`; what was not taken is left out.

    A signal becomes a handful of numbers over all groups, since it comes at every step. A probe comes seldom
    and keeps each step of the network. A finding is its severity: 1 for info, 2 for a warning, 3 for an error.
    """
    return {PREFIX + name: float(value) for name, value in _named(record, info) if value is not None}


def headline(record: Incident | PostMortem) -> str:
    """A record that is a text, in one line."""
    if isinstance(record, Incident):
        flag = record.flag
        return f"step {record.step}: {flag.code} {flag.name} ({flag.severity}) at {flag.where}: {flag.message}"
    return f"step {record.step}: {record.reason.rstrip('.')}" + (
        f", analysed in {record.report}" if record.report else ""
    )


def _named(record: Record, info: RunInfo) -> Iterator[tuple[str, float | None]]:
    if isinstance(record, Signal):
        yield from ((name, of(record)) for name, _, _, of in SIGNAL_NUMBERS)
    elif isinstance(record, Probe):
        yield "probe_seconds", record.cost
        yield from ((name, of(record)) for name, _, _, of in PROBE_NUMBERS)
        yield from ((f"exponent/{index}", value) for index, value in enumerate(record.exponents))
        yield from zip(_step_names(info.steps, len(record.step_gains)), record.step_gains, strict=True)
    elif isinstance(record, Incident):
        yield f"flag/{record.flag.name}", 1.0 + record.flag.severity.rank


def _step_names(names: Sequence[str], count: int) -> list[str]:
    """Steps by index and name: two may have the same name."""
    return [
        f"step_gain/{index} {names[index]}" if index < len(names) else f"step_gain/{index}" for index in range(count)
    ]
