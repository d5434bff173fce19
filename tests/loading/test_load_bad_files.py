"""Files that cannot be loaded: what they look like, in one message. And each good file has exactly one loader."""

from __future__ import annotations

import gzip
import io
import json
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dynstab.core.errors import DynstabError, LoadError
from dynstab.loading import load
from dynstab.loading.loader import loaders
from dynstab.loading.probe import Probe


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.ones(2))
    return buffer.getvalue()


def archive(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in names:
            file.writestr(name, b"content")
    return buffer.getvalue()


def tar() -> bytes:
    return b"file.txt".ljust(257, b"\x00") + b"ustar\x00" + b"\x00" * 300


FOREIGN = {
    "empty": (b"", "an empty file"),
    "png": (b"\x89PNG\r\n\x1a\n" + b"\x00" * 40, "a PNG image"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + b"\x00" * 40, "an HDF5 file"),
    "gguf": (b"GGUF\x03\x00\x00\x00" + b"\x00" * 40, "a GGUF file"),
    "onnx": (b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:\xc0\x01", "an ONNX model"),
    "tflite": (b"\x1c\x00\x00\x00TFL3" + b"\x00" * 20, "a TensorFlow Lite model"),
    "gzip": (gzip.compress(b"weights"), "gzip-compressed data"),
    "tar": (tar(), "a tar archive"),
    "json": (b'{"a": 1}', "JSON"),
    "html": (b"<!DOCTYPE html><html></html>", "an HTML page"),
    "python": (b"import torch\n\nmodel = torch.nn.Linear(1, 1)\n", "Python source"),
    "text": ("caf\u00e9 au lait, ".encode() * 60, "text"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a Git LFS pointer"),
    "npz": (npz(), "a NumPy .npz archive"),
    "keras": (archive("metadata.json", "model.weights.h5"), "a Keras model"),
    "zip": (archive("folder/readme.txt"), "a zip archive of other things (readme.txt)"),
    "noise": (bytes(range(255, 0, -1)) * 8, "binary data of no known format"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_file_is_named_by_its_content(name, tmp_path):
    content, words = FOREIGN[name]
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(LoadError) as caught:
        load(path)
    assert f"looks like {words}" in str(caught.value)
    assert "TorchScript" in str(caught.value)  # what would be welcome


def good_files(folder: Path) -> dict[str, Path]:
    model, x = nn.Linear(3, 2), torch.ones(1, 3)
    paths = {name: folder / name for name in ("module", "weights", "legacy", "safetensors", "script", "exported")}
    torch.save(model, paths["module"])
    torch.save(model.state_dict(), paths["weights"])
    torch.save(model.state_dict(), paths["legacy"], _use_new_zipfile_serialization=False)
    save_file(model.state_dict(), paths["safetensors"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(model), str(paths["script"]))
    with paths["exported"].open("wb") as file:
        torch.export.save(torch.export.export(model, (x,)), file)
    return paths


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> dict[str, Path]:
    return good_files(tmp_path_factory.mktemp("good"))


KINDS = ["module", "weights", "legacy", "safetensors", "script", "exported"]


@pytest.mark.parametrize("kind", KINDS)
def test_exactly_one_loader_recognises_a_file(kind, good):
    assert sum(each.sniff(Probe(good[kind])) is not None for each in loaders()) == 1


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.97])
@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_file_is_a_load_error_in_one_sentence(kind, share, good, tmp_path):
    whole = good[kind].read_bytes()
    path = tmp_path / "cut"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(LoadError) as caught:
        load(path, model="torch.nn:Identity")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_bytes_never_escape_as_another_error(kind, good, tmp_path):
    whole = good[kind].read_bytes()
    path, random = tmp_path / "damaged", np.random.default_rng(0)
    (tmp_path / "model.py").write_text("from torch import nn\ndef build(): return nn.Linear(3, 2)\n")
    for _ in range(40):
        content = bytearray(whole)
        for position in random.integers(0, len(content), size=6):
            content[position] ^= int(random.integers(1, 256))
        path.write_bytes(bytes(content))
        try:
            # Bytes of padding or of a weight may be hit: then it is a model, with other numbers.
            assert isinstance(load(path, model=f"{tmp_path}/model.py:build").module, nn.Module)
        except DynstabError as error:
            assert "\n" not in str(error)


def test_random_bytes_are_refused(tmp_path):
    random = np.random.default_rng(1)
    for size in (1, 7, 8, 9, 100, 5000):
        (tmp_path / "noise").write_bytes(random.bytes(size))
        with pytest.raises(LoadError):
            load(tmp_path / "noise")


def test_a_safetensors_header_that_promises_too_much_is_refused(tmp_path):
    header = json.dumps({"w": {"dtype": "F32", "shape": [1000], "data_offsets": [0, 4000]}}).encode()
    (tmp_path / "w").write_bytes(struct.pack("<Q", len(header)) + header + b"\x00" * 8)
    with pytest.raises(LoadError, match="safetensors, damaged or truncated"):
        load(tmp_path / "w")


def test_a_missing_path_names_its_neighbours(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"")
    with pytest.raises(LoadError, match=r"no file, directory or reference '.*modl\.pt'.*nearby: model\.pt"):
        load(tmp_path / "modl.pt")


@pytest.mark.parametrize("names", [(), ("notes.txt", "model.safetensors")])
def test_a_directory_without_a_configuration_lists_its_content(names, tmp_path):
    for name in names:
        (tmp_path / name).write_text("x")
    with pytest.raises(LoadError, match="without config.json; it holds " + (", ".join(sorted(names)) or "nothing")):
        load(tmp_path)
