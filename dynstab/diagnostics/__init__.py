"""Measurements -> flags and a verdict. Pure functions of data: no model, no tensor.

The words 'exploding' and 'vanishing' live here and nowhere else.
"""

from __future__ import annotations

from dynstab.diagnostics.facts import Facts
from dynstab.diagnostics.judged import judged
from dynstab.diagnostics.registry import (
    all_rules,
    diagnose,
    documented_rules,
    find_documented,
    matching_rules,
    selected_rules,
)
from dynstab.diagnostics.rule import HEADINGS, Finding, Rule
from dynstab.diagnostics.verdict import verdict

__all__ = [
    "HEADINGS",
    "Facts",
    "Finding",
    "Rule",
    "all_rules",
    "diagnose",
    "documented_rules",
    "find_documented",
    "judged",
    "matching_rules",
    "selected_rules",
    "verdict",
]
