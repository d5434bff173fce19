"""Footnotes: why a number is missing or not converged, each reason once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from dynstab.core.estimate import CONVERGED, Estimate
from dynstab.render.numbers import MISSING, UNSETTLED

MOST_RUNS = 8
"""Runs of indices that a footnote lists; of more it says how many indices they are."""


@dataclass
class Footnotes:
    """Collects reasons while a report is set."""

    places: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def add(self, estimate: Estimate, place: str) -> None:
        """Note why `estimate`, shown at `place`, is null or not converged; nothing where it is neither."""
        if estimate.outcome == CONVERGED and estimate.measured:
            return
        mark = UNSETTLED if estimate.measured else MISSING
        places = self.places.setdefault((mark, estimate.outcome), [])
        if place not in places:
            places.append(place)

    def add_series(self, words: str, points: Iterable[tuple[int, Estimate]], noun: str = "") -> None:
        """Note the same of a series: each reason with the indices that it concerns, none where it concerns all."""
        points = list(points)
        members: dict[tuple[bool, str], list[tuple[int, Estimate]]] = {}
        for index, estimate in points:
            members.setdefault((estimate.measured, estimate.outcome), []).append((index, estimate))
        for alike in members.values():
            kind = f" of {noun}{'' if len(alike) == 1 else 's'}" if noun else ""
            if len(alike) == len(points) > 1:
                place = words
            elif (listed := ranges(index for index, _ in alike)).count(",") < MOST_RUNS or not noun:
                place = f"{words}{kind} {listed}"
            else:
                place = f"{words} of {len(alike)} of {len(points)} {noun}s"
            self.add(alike[0][1], place)

    def lines(self) -> list[str]:
        """One line a reason: "– not measured: needs a square step (σ_max of steps 3-7, 9)"."""
        return [
            f"{mark} {_because(mark, reason)} ({', '.join(places)})"
            for (mark, reason), places in sorted(self.places.items())
        ]


def _because(mark: str, reason: str) -> str:
    if mark == UNSETTLED:
        return reason
    return "not measured" if reason in ("not measured", CONVERGED, "") else f"not measured: {reason}"


def ranges(indices: Iterable[int]) -> str:
    """Whole numbers in runs: "3-7, 9"."""
    runs: list[list[int]] = []
    for index in sorted(set(indices)):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
