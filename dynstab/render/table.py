"""The table of steps as data: which quantities exist, which steps stand for themselves, which are summed up."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from dynstab.core.estimate import Estimate, Label
from dynstab.core.flag import Flag
from dynstab.core.measurements import StepMeasurement
from dynstab.core.report import Report
from dynstab.render.footnotes import Footnotes
from dynstab.render.numbers import natural_log

FEW = 30
SHORT_RUN = 3
LOCAL_FLAG = 6


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A column: the field of StepMeasurement, its heading, its name in words, and its rank (1 is kept longest).

    What is `spectral` may be measured at fewer inputs than the rest.
    """

    field: str
    heading: str
    words: str
    rank: int
    spectral: bool = False

    def of(self, step: StepMeasurement) -> Estimate:
        return getattr(step, self.field)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One step; `flag` is the most severe finding that is about it and not about most steps."""

    measured: StepMeasurement
    kind: str
    flag: Flag | None

    @property
    def index(self) -> int:
        return self.measured.index

    @property
    def name(self) -> str:
        return self.measured.name


@dataclass(frozen=True)
class Gap:
    """Neighbouring steps of which none stands out."""

    rows: tuple[Row, ...]


def _quantity(field: str, heading: str, words: str, rank: int, *, spectral: bool = False) -> Quantity:
    return Quantity(field=field, heading=heading, words=words, rank=rank, spectral=spectral)


QUANTITIES = (
    _quantity("rms_gain", "χ", "RMS gain ‖J‖²/d", 1),
    _quantity("relative_gain", "χ rel", "RMS gain relative to the states' norms", 4),
    _quantity("largest_singular_value", "σ max", "largest singular value", 2, spectral=True),
    _quantity("smallest_singular_value", "σ min", "smallest nonzero singular value", 6, spectral=True),
    _quantity("nullity", "nullity", "dimension of the null space", 7, spectral=True),
    _quantity("logarithmic_norm", "μ₂", "logarithmic norm of J - I", 3, spectral=True),
    _quantity("spectral_radius", "ρ", "spectral radius", 8, spectral=True),
    _quantity("spectral_abscissa", "α", "spectral abscissa of J - I", 9, spectral=True),
    _quantity("log_determinant", "ln|det|", "ln |det J|", 13, spectral=True),
    _quantity("henrici_departure", "Henrici", "departure from normality", 14, spectral=True),
    _quantity("kreiss_constant", "Kreiss", "Kreiss constant", 15, spectral=True),
    _quantity("transient_growth", "transient", "largest norm of the powers of J", 16, spectral=True),
    _quantity("branch_share", "branch", "share of the update in the gain", 10),
    _quantity("norm_growth", "growth", "growth of the state's RMS norm", 5),
    _quantity("update_ratio", "update", "size of the update over the state's", 11),
    _quantity("dead_fraction", "dead", "share of dead units", 12),
    _quantity("kink_fraction", "kink", "share of pre-activations at a kink", 17),
)


def rows(report: Report) -> list[Row]:
    """Every step of the system, measured or not."""
    measured = {step.index: step for step in report.measurements.steps}
    known = {step.index: step for step in report.system.steps}
    indices = sorted(measured.keys() | known.keys())
    worst: dict[int, Flag] = {}
    for flag in sorted(report.flags, key=lambda flag: flag.severity.rank):
        if len(flag.steps) <= LOCAL_FLAG or 2 * len(flag.steps) < len(indices):
            worst.update(dict.fromkeys(flag.steps, flag))
    return [
        Row(
            measured=measured.get(index) or StepMeasurement(index=index, name=known[index].name),
            kind=known[index].kind if index in known else "",
            flag=worst.get(index),
        )
        for index in indices
    ]


def meaning(quantity: Quantity, table: Iterable[Row], inputs: int) -> str:
    """What a column holds, in words, and of how many of the inputs where that is not all of them."""
    if not quantity.spectral:
        return quantity.words
    counts = [estimate.samples for row in table if (estimate := quantity.of(row.measured)).measured]
    return quantity.words + some_of(max(counts, default=inputs), inputs)


def some_of(count: int, inputs: int) -> str:
    """ " (1 of 8 inputs)" where a number rests on fewer inputs than the analysis was given; else nothing."""
    return f" ({count} of {inputs} inputs)" if count < inputs else ""


def condensed(report: Report, *, all_steps: bool = False) -> list[Row | Gap]:
    """The steps to show: all of a few; of many, the ends, the flagged and the extreme ones, and gaps between them."""
    table = rows(report)
    if all_steps or len(table) <= FEW:
        return list(table)
    kept = _remarkable(table, report.flags)
    shown: list[Row | Gap] = []
    run: list[Row] = []
    for row in [*table, None]:
        if row is not None and row.index not in kept:
            run.append(row)
            continue
        shown += [Gap(tuple(run))] if len(run) >= SHORT_RUN else run
        run = []
        shown += [row] if row is not None else []
    return shown


def common_prefix(names: Sequence[str]) -> str:
    """The module path that all names share, less its last part: "model." of "model.h.0" and "model.h.1"."""
    paths = [name.split(" ")[0].split(".") for name in names]
    shared = 0
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared += 1
    return ".".join(paths[0][: shared - 1]) + "." if shared > 1 and len(paths) > 1 else ""


def usual_label(estimates: Iterable[Estimate]) -> Label | None:
    """The most frequent label among measured numbers."""
    labels = [estimate.label for estimate in estimates if estimate.measured]
    return max(sorted(set(labels)), key=labels.count) if labels else None


def note_missing(table: Sequence[Row], quantities: Iterable[Quantity], notes: Footnotes) -> None:
    """Footnote every null and every unsettled number of the table, by reason."""
    for quantity in quantities:
        notes.add_series(quantity.heading, [(row.index, quantity.of(row.measured)) for row in table], "step")


def _remarkable(table: Sequence[Row], flags: Iterable[Flag]) -> set[int]:
    kept = {row.index for row in (*table[:2], *table[-2:])}
    for flag in flags:
        kept.update(flag.steps if len(flag.steps) <= LOCAL_FLAG else (min(flag.steps), max(flag.steps)))
    extremes: tuple[tuple[str, Callable[[float], float | None]], ...] = (
        ("rms_gain", lambda value: abs(natural_log(value) or 0.0)),
        ("largest_singular_value", float),
        ("logarithmic_norm", float),
        ("norm_growth", lambda value: abs(natural_log(value) or 0.0)),
    )
    for field, size in extremes:
        sizes = [(size(value), row.index) for row in table if (value := getattr(row.measured, field).value) is not None]
        broken = [index for value, index in sizes if value is None or not math.isfinite(value)]
        kept.update(broken[:1])
        whole = [(value, -index) for value, index in sizes if value is not None and math.isfinite(value)]
        kept.update([-max(whole)[1]] if whole else [])
    return kept
