"""Weights without an architecture: found under the usual names, matched with `--model`, or refused in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dynstab.core.errors import LoadError
from dynstab.loading import load

ARCHITECTURE = """
import torch
from torch import nn

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(self.embed(x))

def build():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))

def build_with_inputs():
    return build(), torch.ones(5, 3)

def build_nested():
    return nn.ModuleDict({"model": build()})
"""


@pytest.fixture
def architecture(tmp_path: Path) -> str:
    path = tmp_path / "architecture.py"
    path.write_text(ARCHITECTURE)
    return str(path)


def trained() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def assert_same_weights(module: nn.Module, expected: nn.Module) -> None:
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(module.state_dict()[name], value, rtol=0, atol=0)


@pytest.mark.parametrize("nest", [None, "state_dict", "model", "model_state_dict", "module"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "module._orig_mod.model."])
def test_weights_are_found_below_the_usual_names_and_prefixes(nest, prefix, architecture, tmp_path):
    model = trained()
    weights = {prefix + name: value for name, value in model.state_dict().items()}
    path = tmp_path / "weights.bin"
    torch.save({nest: weights, "epoch": 4, "optimizer": {"lr": 0.1}} if nest else weights, path)
    loaded = load(path, model=f"{architecture}:build")
    assert_same_weights(loaded.module, model)
    assert loaded.format == "torch.save, weights"
    assert any("removed" in note for note in loaded.notes) == bool(prefix)


def test_a_prefix_that_the_model_itself_has_stays(architecture, tmp_path):
    model = trained()
    torch.save({f"model.{name}": value for name, value in model.state_dict().items()}, tmp_path / "w")
    loaded = load(tmp_path / "w", model=f"{architecture}:build_nested")
    assert_same_weights(loaded.module["model"], model)


def test_legacy_files_and_safetensors_hold_the_same_weights(architecture, tmp_path):
    model = trained()
    torch.save(model.state_dict(), tmp_path / "legacy", _use_new_zipfile_serialization=False)
    save_file(model.state_dict(), tmp_path / "tensors")
    formats = []
    for name in ("legacy", "tensors"):
        loaded = load(tmp_path / name, model=f"{architecture}:build")
        assert_same_weights(loaded.module, model)
        formats.append(loaded.format)
    assert formats == ["torch.save (legacy), weights", "safetensors"]


@pytest.mark.parametrize("kind", ["torch.save", "safetensors"])
def test_without_an_architecture_the_answer_says_what_was_found(kind, tmp_path):
    weights = trained().bfloat16().state_dict()
    path = tmp_path / "w"
    torch.save(weights, path) if kind == "torch.save" else save_file(weights, path)
    with pytest.raises(LoadError) as caught:
        load(path)
    message = str(caught.value)
    assert "9 tensors" in message and "bfloat16" in message and "0.weight (4, 3)" in message
    assert "--model" in message


def test_a_mismatch_names_the_first_differences(architecture, tmp_path):
    weights = trained().state_dict()
    del weights["2.bias"]
    weights["surplus"] = torch.ones(1)
    weights["0.weight"] = torch.ones(5, 3)
    torch.save(weights, tmp_path / "w")
    with pytest.raises(LoadError) as caught:
        load(tmp_path / "w", model=f"{architecture}:build")
    message = str(caught.value)
    assert "1 missing (2.bias)" in message and "1 unexpected (surplus)" in message
    assert "0.weight is (5, 3) in the file and (4, 3) in the model" in message


def test_a_tied_weight_is_stored_once(architecture, tmp_path):
    save_file({"embed.weight": torch.ones(5, 3)}, tmp_path / "tied")
    module = load(tmp_path / "tied", model=f"{architecture}:Tied").module
    assert module.head.weight is module.embed.weight
    assert torch.equal(module.head.weight, torch.ones(5, 3))


def test_the_inputs_of_the_factory_come_along(architecture, tmp_path):
    torch.save(trained().state_dict(), tmp_path / "w")
    loaded = load(tmp_path / "w", model=f"{architecture}:build_with_inputs")
    assert loaded.inputs is not None and torch.equal(loaded.inputs.args[0], torch.ones(5, 3))


def test_a_change_of_dtype_is_noted(architecture, tmp_path):
    torch.save(trained().half().state_dict(), tmp_path / "w")
    notes = load(tmp_path / "w", model=f"{architecture}:build").notes
    assert "weights stored as float16, used as float32" in notes


def test_a_pickle_without_weights_says_what_it_holds(tmp_path):
    torch.save({"epoch": 3, "loss": [0.1, 0.2]}, tmp_path / "log")
    with pytest.raises(LoadError, match="'epoch', 'loss'"):
        load(tmp_path / "log")


def test_safetensors_beside_a_configuration_point_to_the_directory(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    save_file({"w": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(LoadError, match="give the directory"):
        load(tmp_path / "model.safetensors")
