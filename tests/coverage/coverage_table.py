"""The rows of a coverage run as reports/coverage.md and reports/coverage.json."""

from __future__ import annotations

import json
import platform
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from kinds import KINDS, kind_of

import dynstab

Row = dict[str, Any]
_UNCOUNTED = ("not small", "no input")
_PACKAGES = ("transformers", "timm", "torchvision")
_TIMM = "timm"  # the task of its rows
_START, _END = "<!-- coverage -->", "<!-- /coverage -->"


def write_tables(rows: Sequence[Row], folder: Path, *, limit: float) -> None:
    """Write both files from the rows, each architecture once (its latest row), in alphabetical order.

    The README beside `folder` gets the support matrix between its two markers, where it has them.
    """
    latest = {row["family"]: row for row in rows}
    ordered = [latest[family] for family in sorted(latest, key=str.lower)]
    facts = {"limit": limit, **{source: _facts(part) for source, part in _by_source(ordered).items()}}
    kept = [{key: value for key, value in row.items() if key not in ("names", "trace")} for row in ordered]
    document = {"versions": _versions(), **facts, "rows": kept}
    (folder / "coverage.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    (folder / "coverage.md").write_text(_page(ordered, facts))
    readme = folder.parent / "README.md"
    text = readme.read_text()
    if _START in text and _END in text:
        before, after = text.split(_START)[0], text.split(_END)[1]
        readme.write_text(f"{before}{_START}\n{support_matrix(ordered)}\n{_END}{after}")


def support_matrix(rows: Sequence[Row]) -> str:
    """Kinds of architecture against how many are counted, analysed, and have the blocks that they declare."""
    kinds = {name: [row for row in rows if kind_of(row) == name] for name in KINDS}
    lines = [[name, *_tally(_counted(part))] for name, part in kinds.items() if _counted(part)]
    return "\n".join(
        _table(
            ("kind of architecture", "counted", "analysed, all checks true", "blocks match"),
            [*lines, ["all", *_tally(_counted(rows))]],
        )
    )


def _tally(rows: Sequence[Row]) -> list[str]:
    good = [row for row in rows if _good(row)]
    declared = [row for row in good if row["blocks"]]
    matched = sum(not row["broken"] for row in declared)
    return [str(len(rows)), str(len(good)), f"{matched} of {len(declared)}" if declared else "none declared"]


def _by_source(rows: Sequence[Row]) -> dict[str, list[Row]]:
    parts = {
        name: [row for row in rows if (row["task"] == _TIMM) == (name == "timm")] for name in ("transformers", "timm")
    }
    return {name: part for name, part in parts.items() if part}


def _counted(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["status"] not in _UNCOUNTED]


def _facts(rows: Sequence[Row]) -> dict[str, Any]:
    counted = _counted(rows)
    good = [row for row in counted if _good(row)]
    declared = [row for row in good if row["blocks"]]
    return {
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
    counted = _counted(rows)
    return "\n".join(
        [
            "# Coverage: every architecture that transformers registers, and every family of timm",
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
            "## By kind",
            "",
            "Kinds are read from the automatic mappings of transformers and from what forward takes.",
            "",
            support_matrix(rows),
            "",
            "## All that were analysed",
            "",
            *_table(
                ("architecture", "class", "rung", "input", "states", "steps", "residual", "updates / blocks", "checks",
                 "ops without a rule", "s", "MiB"),
                (_line(row) for row in counted if _good(row)),
            ),
            "",
            "## Not counted: no small model by the rules, or no input that the small model accepts",
            "",
            *_table(("why", "architectures"), _classes([row for row in rows if row["status"] in _UNCOUNTED])),
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
    sources = [name for name in ("transformers", "timm") if name in facts]
    return [
        "Each model has random weights and is made small by rules on the names of its configuration's fields "
        "(two blocks, more where a hybrid needs them; width 64 to 128; images of 32 to 224 pixels; 16 tokens). "
        "No input is given: dynstab makes up two. Each runs in its own process at quick effort on one thread, "
        f"two at a time, with a limit of {facts['limit']:g} s that includes building the model.",
        "",
        *_table(
            ("", *sources),
            [
                [words, *(value(facts[source]) for source in sources)]
                for words, value in (
                    ("in the registry with a model class; families", lambda f: f["registered"]),
                    ("a small model that accepts a made-up input (counted)", lambda f: f["counted"]),
                    ("analysed, all checks true, within the limit", lambda f: _share(f["analyzed"], f["counted"])),
                    ("of these, with a declared stack of blocks on the chain", lambda f: f["declared"]),
                    ("of these, updates match the declared blocks", lambda f: _share(f["matched"], f["declared"])),
                )
            ],
        ),
        "",
        f"The slowest analysis took {max(facts[source]['slowest'] for source in sources):g} s, "
        "with other work on the machine.",
        "",
        "A declared stack is a list of modules whose length is a layer count of the configuration; where the "
        "configuration gives the depths of stages, those count. A stack counts where a step lies in it. The updates "
        "of a block are its residual steps and its transitions (where another stream joins or leaves, or the width "
        "changes), for one run where forward runs it several times. A stack matches where every block holds one to "
        "four updates and blocks of the same make hold the same number; the block at which the chain enters the "
        "stack from another stream may hold fewer. A block that forgets its input when its own matrices are zero has "
        "no skip: it must hold no residual step, and does not count (PP-LCNet's plain convolutions). "
        "MiB is the peak of the process, libraries included.",
        "",
        "A family of timm is one of its modules: the miniature that timm keeps of it for its tests, or else the model "
        "with the fewest parameters, cut in depth and width beyond 30 million of them and left out beyond 100; images "
        "have 64 pixels a side, or the next of 128, 224 and 256 that the model accepts. timm is an extra step, "
        "`pip install --no-deps timm==1.0.31 torchvision==0.28.0`; where either is not installed, its families are "
        "left out. The compiled half of torchvision need not fit a CPU build of torch: the run declares, without a "
        "kernel, the operators that its Python half expects, and no model calls one.",
    ]


def _classes(rows: Sequence[Row]) -> list[list[Any]]:
    """Reasons by class, the commonest first."""
    counts = Counter(next(words for pattern, words in _WHY if re.search(pattern, row["reason"])) for row in rows)
    return [[words, number] for words, number in counts.most_common()]


_WHY = (
    (r"needs a package", "needs a package that is not installed (timm, Pillow, torchaudio, detectron2, natten)"),
    (r"million parameters", "stays above 30 million parameters"),
    (r"has no forward", "has no forward of its own: its parts are called one by one"),
    (
        r"accepts none of the inputs",
        "accepts no input made up by rule (boxes, sessions, packed patches, pairs)",
    ),
    (r"validator|must|should|divisible", "its configuration checks relations between sizes that the rules do not keep"),
    (r"", "its default configuration builds no model, small or not"),
)


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
