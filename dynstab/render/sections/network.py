"""The whole network in a few lines."""

from __future__ import annotations

from dynstab.core.estimate import Estimate
from dynstab.core.report import Report
from dynstab.render.footnotes import Footnotes
from dynstab.render.ink import Ink
from dynstab.render.numbers import estimate, number
from dynstab.render.page import Page, heading, pairs


def facts(report: Report) -> list[tuple[str, Estimate, str]]:
    """Every number on the whole: its name, itself, its unit for people."""
    network, lyapunov = report.measurements.network, report.measurements.lyapunov
    numbers = [
        ("G, ln relative gradient gain", network.log_gradient_gain, "nat"),
        ("median of G over inputs", network.median_log_gradient_gain, "nat"),
        ("G of finite width alone", network.null_log_gain, "nat"),
        ("ln raw gradient gain", network.raw_log_gradient_gain, "nat"),
        ("ln signal gain", network.log_signal_gain, "nat"),
        ("smallest nonzero σ", network.smallest_singular_value, ""),
        ("ln |det J|", network.log_determinant, "nat"),
        ("sum of the exponents", lyapunov.sum, lyapunov.unit),
        ("expansion sum", lyapunov.expansion_sum, lyapunov.unit),
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
