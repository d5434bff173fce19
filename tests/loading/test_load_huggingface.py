"""Hugging Face directories: sharded or whole, by the architecture that config.json names, offline."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from pathlib import Path

import pytest
import torch

from dynstab.core.errors import LoadError
from dynstab.loading import infer_inputs, load

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    transformers = pytest.importorskip("transformers")

SMALL = {"num_attention_heads": 2, "num_hidden_layers": 2, "hidden_size": 16, "intermediate_size": 32}


def gpt2(**changes):
    config = transformers.GPT2Config(
        n_layer=2, n_embd=16, n_head=2, vocab_size=50, n_positions=12, bos_token_id=0, eos_token_id=0, **changes
    )
    return transformers.GPT2LMHeadModel(config)


def save(model, path: Path, **options) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(path, **options)


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_a_sharded_directory_is_the_model_that_was_saved(tmp_path):
    model = gpt2().bfloat16()
    save(model, tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    loaded = load(tmp_path)
    assert loaded.format == "Hugging Face directory" and loaded.notes == ()
    assert type(loaded.module) is transformers.GPT2LMHeadModel
    assert loaded.module.dtype == torch.bfloat16 and not loaded.module.training
    assert same(loaded.module, model)
    assert loaded.module.lm_head.weight is loaded.module.transformer.wte.weight


FAMILIES = {
    "bert": (lambda: transformers.BertModel(transformers.BertConfig(**SMALL, vocab_size=50)), {"input_ids": (3, 16)}),
    "vit": (
        lambda: transformers.ViTModel(transformers.ViTConfig(**SMALL, image_size=16, patch_size=8)),
        {"pixel_values": (3, 3, 16, 16)},
    ),
    "t5": (
        lambda: transformers.T5ForConditionalGeneration(
            transformers.T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
        ),
        {"input_ids": (3, 16), "decoder_input_ids": (3, 16)},
    ),
    "gpt2 with 12 positions": (gpt2, {"input_ids": (3, 12)}),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_inputs_follow_the_configuration(family, tmp_path):
    make, shapes = FAMILIES[family]
    save(make(), tmp_path)
    inputs = infer_inputs(load(tmp_path), samples=3)
    assert {name: tuple(value.shape) for name, value in inputs.kwargs.items()} == shapes
    assert inputs.made_up and inputs.args == () and len(inputs.description) == 1
    ids = inputs.kwargs.get("input_ids")
    assert ids is None or (ids.dtype == torch.int64 and int(ids.min()) >= 0 and int(ids.max()) < 50)


def test_a_configuration_without_weights_is_initialised_and_said_so(tmp_path):
    gpt2().config.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["GPT2Model"]}))
    before = torch.get_rng_state()
    first, second = load(tmp_path), load(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert type(first.module) is transformers.GPT2Model and same(first.module, second.module)
    assert "initialised from config.json" in first.notes[0]


def test_weights_that_are_missing_are_noted(tmp_path):
    save(gpt2().transformer, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"architectures": ["GPT2ForSequenceClassification"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert any("score.weight" in note and "afresh" in note for note in load(tmp_path).notes)


def write_config(path: Path, **content) -> None:
    (path / "config.json").write_text(json.dumps(content))


def test_code_in_the_directory_is_never_run(tmp_path):
    (tmp_path / "modeling.py").write_text("import pathlib; pathlib.Path(__file__).with_name('touched').touch()\n")
    write_config(tmp_path, model_type="gpt2", architectures=["OwnModel"], auto_map={"AutoModel": "modeling.OwnModel"})
    with pytest.raises(LoadError, match="OwnModel.*never run"):
        load(tmp_path)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [("{not json", "is not JSON"), ("[]", "names no model_type"), ('{"model_type": "no_such_type"}', "no_such_type")],
)
def test_a_bad_configuration_is_a_load_error(content, words, tmp_path):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(LoadError, match=words):
        load(tmp_path)


def test_a_truncated_shard_is_a_load_error(tmp_path):
    save(gpt2(), tmp_path)
    shard = tmp_path / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:2000])
    with pytest.raises(LoadError, match="transformers cannot load"):
        load(tmp_path)


def test_a_missing_shard_is_a_load_error(tmp_path):
    save(gpt2(), tmp_path, max_shard_size="10KB")
    sorted(tmp_path.glob("*.safetensors"))[-1].unlink()
    with pytest.raises(LoadError, match="shards"):
        load(tmp_path)


def test_without_transformers_the_remedy_is_the_extra(tmp_path, monkeypatch):
    write_config(tmp_path, model_type="gpt2", architectures=["GPT2Model"])
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(LoadError, match=r"dynstab\[hf\]"):
        load(tmp_path)


def test_loading_is_silent_and_leaves_no_setting_behind(tmp_path, capfd, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "0")
    save(gpt2(), tmp_path, max_shard_size="10KB")
    verbosity = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity(logging.INFO)
    try:
        capfd.readouterr()
        load(tmp_path)
        assert capfd.readouterr() == ("", "")
        assert transformers.utils.logging.get_verbosity() == logging.INFO
    finally:
        transformers.utils.logging.set_verbosity(verbosity)
    assert "HF_HUB_OFFLINE" not in os.environ and os.environ["TRANSFORMERS_OFFLINE"] == "0"
