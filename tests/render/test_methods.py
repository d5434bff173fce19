"""Methods and their papers."""

from __future__ import annotations

import re

import pytest

from dynstab.core.estimate import Estimate
from dynstab.core.report import Report
from dynstab.render.bibliography import LIBRARY, Reference
from dynstab.render.methods import BY_METHOD, BY_QUANTITY, methods, quantities, references


def test_everything_that_is_cited_is_in_the_library() -> None:
    cited = {key for _, keys in BY_METHOD for key in keys} | {key for keys in BY_QUANTITY.values() for key in keys}
    assert cited | {"yang2017"} == set(LIBRARY)


@pytest.mark.parametrize("reference", LIBRARY.values(), ids=LIBRARY)
def test_an_entry_is_well_formed_bibtex(reference: Reference) -> None:
    text = reference.bibtex
    assert re.match(r"@(article|book|inproceedings|incollection)\{[a-z]+\d{4},\n", text)
    assert text.count("{") == text.count("}")
    assert str(reference.year) in reference.key and str(reference.year) in reference.text
    assert all(", " in author for author in reference.authors.split(" and "))


def test_every_measured_number_has_its_method_listed(sample: tuple[str, Report]) -> None:
    listed = {method for method, _ in methods(sample[1])}
    assert {e.method for _, e in quantities(sample[1]) if e.measured and e.method} == listed


def test_papers_are_those_of_the_methods_used(samples: dict[str, Report]) -> None:
    cited = {reference.key: uses for reference, uses in references(samples["stable"])}
    assert "RMS gain ‖J‖²/d" in cited["hutchinson1990"]
    assert "QR exponents" in cited["benettin1980"]
    assert "law of growth" in cited["yang2017"]
    assert "kaplan1979" not in cited
    assert references(samples["empty"]) == []


def test_what_was_not_measured_cites_nothing(samples: dict[str, Report]) -> None:
    report = samples["empty"]
    network = report.measurements.network.model_copy(
        update={"log_determinant": Estimate(value=None, method="QR, 3 factorizations")}
    )
    measured = report.measurements.model_copy(update={"network": network})
    assert methods(report.model_copy(update={"measurements": measured})) == []
