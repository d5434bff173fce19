"""Which methods gave the numbers of a report, and the papers that they and the definitions come from."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dynstab.core.estimate import Estimate
from dynstab.core.report import Report
from dynstab.render.bibliography import LIBRARY, Reference
from dynstab.render.sections.network import facts
from dynstab.render.table import QUANTITIES
from dynstab.render.topics import topics

BY_METHOD = (
    (r"\bGolub-Kahan\b", ("golub1981",)),
    (r"\bproduct QR\b", ("stewart1997",)),
    (r"\bJacobi SVD\b", ("demmel1992",)),
    (r"^QR,|\bforward-backward QR\b", ("benettin1980", "geist1990")),
    (r"\bHutchinson\b", ("hutchinson1990",)),
    (r"\bGinelli\b", ("ginelli2007",)),
    (r"\brandomi[sz]ed .*bound\b", ("halko2011",)),
    (r"\bLanczos\b", ("golub2013",)),
    (r"\bArnoldi\b", ("saad2011",)),
    (r"\bdense\b|\bdiagonal blocks\b", ("golub2013",)),
    (r"\bwidth fluctuations\b", ("hanin2020",)),
)
"""Which algorithm, by how its name reads in `Estimate.method`."""

BY_QUANTITY = {
    "RMS gain ‖J‖²/d": ("schoenholz2017",),
    "logarithmic norm of J - I": ("soderlind2006",),
    "departure from normality": ("henrici1962",),
    "Kreiss constant": ("trefethen2005",),
    "largest norm of the powers of J": ("trefethen2005",),
    "finite-time exponents": ("geist1990",),
    "effective rank": ("roy2007",),
    "token similarity": ("dong2021",),
    "Kaplan-Yorke dimension": ("kaplan1979",),
    "order under refinement": ("haber2017", "sander2022"),
    "depth smoothness": ("sander2022",),
}
"""Whose definition a quantity is."""


def quantities(report: Report) -> Iterator[tuple[str, Estimate]]:
    """Every estimate of a report with the words for what it is."""
    measured = report.measurements
    for step in measured.steps:
        yield from ((quantity.words, quantity.of(step)) for quantity in QUANTITIES)
        yield from (("singular values of the steps", value) for value in step.singular_values)
    for state in measured.states:
        for field in ("rms", "max_abs", "smallest_magnitude", "nonfinite_fraction"):
            yield "sizes of the states", getattr(state, field)
        yield from (("effective rank", state.effective_rank), ("token similarity", state.token_similarity))
    yield from (("QR exponents", value) for value in measured.lyapunov.qr)
    yield from (("finite-time exponents", value) for value in measured.lyapunov.finite_time)
    for point in measured.gradient_flow:
        yield from (("gradient gain", point.gain), ("least gradient gain", point.lower))
        yield from (("greatest gradient gain", point.upper), ("product bound", point.product_upper))
    yield from (("singular values of the network", value) for value in measured.network.largest_singular_values)
    yield from ((name, estimate) for name, estimate, _ in facts(report))
    for topic in topics(report):
        yield from ((name, estimate) for name, estimate, _ in topic.facts)


def methods(report: Report) -> list[tuple[str, tuple[str, ...]]]:
    """Each method that was used, in the order of the report, with the quantities it gave."""
    used: dict[str, dict[str, None]] = {}
    for name, estimate in quantities(report):
        if estimate.measured and estimate.method:
            used.setdefault(estimate.method, {})[name] = None
    return [(method, tuple(names)) for method, names in used.items()]


def references(report: Report) -> list[tuple[Reference, tuple[str, ...]]]:
    """The papers of the methods and quantities in a report, each with what it is cited for."""
    cited: dict[str, dict[str, None]] = {}
    for method, names in methods(report):
        for pattern, keys in BY_METHOD:
            if re.search(pattern, method):
                for key in keys:
                    cited.setdefault(key, {}).update(dict.fromkeys(names))
        for name in names:
            for key in BY_QUANTITY.get(name, ()):
                cited.setdefault(key, {})[name] = None
    if report.measurements.network.growth is not None:
        cited.setdefault("yang2017", {})["law of growth"] = None
    return [(LIBRARY[key], tuple(cited[key])) for key in LIBRARY if key in cited]
