"""The whole network in a few lines."""

from __future__ import annotations

from dynstab.core.estimate import Estimate
from dynstab.core.report import Report
from dynstab.render.footnotes import Footnotes
from dynstab.render.ink import Ink
from dynstab.render.numbers import estimate, number
from dynstab.render.page import Page, heading, pairs
from dynstab.render.table import some_of


def facts(report: Report) -> list[tuple[str, Estimate, str]]:
    """Every number on the whole: its name, itself, its unit for people."""
    network, lyapunov, inputs = report.measurements.network, report.measurements.lyapunov, report.provenance.samples
    numbers = [
        ("G, ln relative gradient gain", network.log_gradient_gain, "nat"),
        ("median of G over inputs", network.median_log_gradient_gain, "nat"),
        ("G of finite width alone", network.null_log_gain, "nat"),
        ("ln raw gradient gain", network.raw_log_gradient_gain, "nat"),
        ("ln signal gain", network.log_signal_gain, "nat"),
        _of_spectrum("smallest nonzero σ", network.smallest_singular_value, "", inputs),
        _of_spectrum("ln |det J|", network.log_determinant, "nat", inputs),
        _of_spectrum("sum of the exponents", lyapunov.sum, lyapunov.unit, inputs),
        _of_spectrum("expansion sum", lyapunov.expansion_sum, lyapunov.unit, inputs),
    ]
    if report.system.axis == "depth":
        numbers += [
            ("depth smoothness", network.depth_smoothness, ""),
            ("order under refinement", network.refinement_order, ""),
        ]
    towards = "depth" if report.system.axis == "depth" else "steps"
    numbers.append((f"{towards} to underflow", network.underflow_depth, "steps"))
    if report.system.kind == "time" or lyapunov.kaplan_yorke_dimension.measured:
        numbers.append(("Kaplan-Yorke dimension", lyapunov.kaplan_yorke_dimension, ""))
    return numbers


def _of_spectrum(name: str, value: Estimate, unit: str, inputs: int) -> tuple[str, Estimate, str]:
    """Spectra may rest on fewer inputs than the rest, which is said behind the number."""
    return name, value, f"{unit}{some_of(value.samples, inputs)}".strip()


def remarks(report: Report) -> list[tuple[str, str]]:
    """What is known of the whole beside numbers."""
    network = report.measurements.network
    entries = []
    if network.growth is not None:
        entries.append(("law of growth", f"{network.growth.law}; linear fit {number(network.growth.rate)} nat/step"))
    if network.causal is not None and report.system.axis == "depth":
        entries.append(("causal", "yes, token blocks are lower triangular" if network.causal else "no"))
    if network.batch_coupled is not None and report.system.axis != "training":
        entries.append(("inputs", "influence each other" if network.batch_coupled else "do not influence each other"))
    return entries


def network(report: Report, ink: Ink, notes: Footnotes) -> Page:
    """The measured numbers, two columns where the page is wide; the others become footnotes."""
    entries = []
    for name, quantity, unit in facts(report):
        notes.add(quantity, name)
        if quantity.measured:
            entries.append((name, f"{estimate(quantity)} {unit}".rstrip()))
    entries += remarks(report)
    return (
        heading(ink, "Whole network" if report.system.axis == "depth" else "All steps together") + pairs(ink, entries)
        if entries
        else []
    )
