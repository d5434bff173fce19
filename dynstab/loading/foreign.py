"""What a file that dynstab cannot load looks like, for the error message."""

from __future__ import annotations

import json
from pathlib import Path

from dynstab.loading.probe import Probe

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"%PDF-", "a PDF document"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes"),
    (b"GGUF", "a GGUF file of quantised weights, as llama.cpp reads"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x1f\x8b", "gzip-compressed data"),
    (b"BZh", "bzip2-compressed data"),
    (b"\xfd7zXZ\x00", "xz-compressed data"),
    (b"(\xb5/\xfd", "zstd-compressed data"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"PAR1", "a Parquet table"),
    (b"\x7fELF", "a compiled program or library"),
    (b"PTMF", "a TorchScript mobile file"),
    (b"version https://git-lfs", "a Git LFS pointer, the file itself was not fetched"),
)


def describe(probe: Probe) -> str:
    """The likeliest format of a file, in words that complete "it looks like"."""
    head = probe.head
    if probe.size == 0:
        return "an empty file"
    for magic, words in _MAGIC:
        if head.startswith(magic):
            return words
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite model"
    if head[4:8] == b"ET12":
        return "an ExecuTorch program"
    if head[257:262] == b"ustar":
        return "a tar archive"
    if probe.cut_zip:
        return "a truncated zip archive: torch.save, TorchScript and .pt2 write zip archives"
    if probe.records:
        return _describe_zip(probe.records)
    if _is_onnx(head):
        return "an ONNX model"
    return _describe_text(probe) or "binary data of no known format"


def _describe_zip(records: tuple[str, ...]) -> str:
    if all(name.endswith(".npy") for name in records):
        return "a NumPy .npz archive"
    if "model.weights.h5" in records:
        return "a Keras model"
    if any("aotinductor" in name for name in records):
        return "a compiled AOTInductor package, which holds no graph"
    return f"a zip archive of other things ({', '.join(records[:3])})"


def _is_onnx(head: bytes) -> bool:
    # A protobuf whose first fields are ir_version (tag 1) and producer_name (tag 2).
    return head[:1] == b"\x08" and head[2:3] == b"\x12" and head[3] + 4 < len(head) and head[1] < 32


def _describe_text(probe: Probe) -> str | None:
    try:
        text = probe.head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(probe.head) - 4:  # a character cut in two by the end of the head is no objection
            return None
        text = probe.head[: error.start].decode("utf-8")
    if any(ord(letter) < 32 and letter not in "\t\r\n\f" for letter in text):
        return None
    start = text.lstrip()
    if start.startswith(("{", "[")):
        return "JSON" if probe.size > len(probe.head) or _parses(text) else "text"
    if start.lower().startswith(("<!doctype html", "<html")):
        return "an HTML page, perhaps a failed download"
    if probe.path.suffix == ".py" or start.startswith(("import ", "from ")):
        return "Python source"
    return "text"


def _parses(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True


def directory_contents(path: Path) -> str:
    """The first names in a directory, for the error message."""
    names = sorted(each.name for each in path.iterdir())
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "") if names else "nothing"
