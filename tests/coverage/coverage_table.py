"""The rows of a coverage run as reports/coverage.md and reports/coverage.json."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import dynstab

Row = dict[str, Any]
_UNCOUNTED = ("not small", "no input")
_PACKAGES = ("transformers", "timm", "torchvision")


def write_tables(rows: Sequence[Row], folder: Path, *, limit: float) -> None:
    """Write both files from the rows, each architecture once (its latest row), in alphabetical order."""
    latest = {row["family"]: row for row in rows}
    ordered = [latest[family] for family in sorted(latest, key=str.lower)]
    facts = _facts(ordered, limit)
    kept = [{key: value for key, value in row.items() if key not in ("names", "trace")} for row in ordered]
    document = {"versions": _versions(), **facts, "rows": kept}
    (folder / "coverage.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    (folder / "coverage.md").write_text(_page(ordered, facts))


def _facts(rows: Sequence[Row], limit: float) -> dict[str, Any]:
    counted = [row for row in rows if row["status"] not in _UNCOUNTED]
    good = [row for row in counted if row["status"] == "analyzed"]
    declared = [row for row in good if row["blocks"]]
    return {
        "limit": limit,
        "registered": len(rows),
        "counted": len(counted),
        "analyzed": len(good),
        "declared": len(declared),
        "matched": sum(not row["broken"] for row in declared),
        "slowest": max((row["seconds"] for row in good), default=0.0),
    }


def _versions() -> dict[str, str]:
    known = {"dynstab": dynstab.__version__, "python": platform.python_version(), "torch": torch.__version__}
    for package in _PACKAGES:
        try:
            known[package] = version(package)
        except PackageNotFoundError:
            known[package] = "not installed"
    return known


def _page(rows: Sequence[Row], facts: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in _versions().items())
    counted = [row for row in rows if row["status"] not in _UNCOUNTED]
    return "\n".join(
        [
            "# Coverage: every architecture that transformers registers",
            "",
            f"Written by `make coverage`. Versions: {versions}.",
            "",
            *_summary(facts),
            "",
            "## Failures",
            "",
            *_table(
                ("architecture", "class", "outcome", "reason"),
                ([r["family"], r.get("class", ""), r["status"], r["reason"]] for r in counted if not _good(r)),
            ),
            "",
            "## Blocks that do not match what the configuration declares",
            "",
            *_table(
                ("architecture", "blocks", "updates", "blocks with another number of updates"),
                ([r["family"], r["blocks"], r["updates"], ", ".join(r["broken"])] for r in counted if r.get("broken")),
            ),
            "",
            "## All that were analyzed",
            "",
            *_table(
                ("architecture", "class", "rung", "input", "states", "steps", "residual", "updates / blocks", "checks",
                 "ops without a rule", "s", "MiB"),
                (_line(row) for row in counted if _good(row)),
            ),
            "",
            "## Not counted: no small model by the rules, or no input that the small model accepts",
            "",
            *_table(
                ("architecture", "outcome", "reason"),
                ([r["family"], r["status"], r["reason"]] for r in rows if r["status"] in _UNCOUNTED),
            ),
            "",
        ]
    )  # fmt: skip


def _good(row: Row) -> bool:
    return row["status"] == "analyzed"


def _summary(facts: dict[str, Any]) -> list[str]:
    return [
        "Each model has random weights and is made small by rules on the names of its configuration's fields "
        "(two blocks, more where a hybrid needs them; width 64 to 128; images of 32 to 224 pixels; 16 tokens). "
        "No input is given: dynstab makes up two. Each runs in its own process at quick effort on one thread, "
        f"two at a time, with a limit of {facts['limit']:g} s that includes building the model.",
        "",
        *_table(
            ("", "architectures"),
            [
                ["in the registry with a model class", facts["registered"]],
                ["a small model that accepts a made-up input (counted)", facts["counted"]],
                ["analyzed, all checks true, within the limit", _share(facts["analyzed"], facts["counted"])],
                ["of these, with a declared stack of blocks on the chain", facts["declared"]],
                ["of these, updates match the declared blocks", _share(facts["matched"], facts["declared"])],
            ],
        ),
        "",
        f"The slowest analysis took {facts['slowest']:g} s, with other work on the machine.",
        "",
        "A declared stack is a list of modules whose length is a layer count of the configuration; where the "
        "configuration gives the depths of stages, those count. A stack counts where a step lies in it. The updates of "
        "a block are its residual steps and its transitions (where another stream joins or leaves, or the width "
        "changes). A stack matches where every block holds one to four updates and blocks of the same make hold the "
        "same number; the block at which the chain enters the stack from another stream may hold fewer. "
        "MiB is the peak of the process, libraries included.",
        "",
        "timm needs torchvision to be imported; where that is not installed, its families are left out.",
    ]


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({100 * part / max(whole, 1):.1f}%)"


def _line(row: Row) -> list[Any]:
    other = {name: count for name, count in row["routes"].items() if name != "rule"}
    return [
        row["family"],
        row["class"],
        row["rung"],
        row["inputs"][0].split(": ", 1)[-1].split("; the model rejected")[0],
        row["states"],
        row["steps"],
        row["kinds"]["residual"],
        f"{row['updates']} / {row['blocks']}" if row["blocks"] else "none declared",
        row["checks"],
        ", ".join(f"{name} ({count})" for name, count in other.items()) or "none",
        row["seconds"],
        row["peak MiB"],
    ]


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    lines = [["", *(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row), ""] for row in rows]
    if not lines:
        return ["None."]
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(" | ".join(line).strip() for line in lines)]
