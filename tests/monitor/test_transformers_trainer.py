"""The callback of transformers' Trainer in real trainings of a small character-level transformer."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from dynstab.monitor.store import read_run

pytestmark = pytest.mark.filterwarnings("ignore")
transformers = pytest.importorskip("transformers", reason="pip install 'dynstab[hf]'")
pytest.importorskip("accelerate", reason="pip install 'dynstab[hf]'")

TOKENS = 16


class Characters(Dataset):
    """Windows of the text that Python prints at `import this`."""

    def __init__(self) -> None:
        import codecs
        from importlib import util

        spec = util.find_spec("this")
        assert spec is not None and spec.origin is not None
        text = codecs.decode(Path(spec.origin).read_text(), "rot13")
        letters = sorted(set(text))
        self.vocabulary = len(letters)
        self.tokens = torch.tensor([letters.index(letter) for letter in text])

    def __len__(self) -> int:
        return len(self.tokens) - TOKENS

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        window = self.tokens[index : index + TOKENS]
        return {"input_ids": window, "labels": window}


@pytest.fixture(scope="module")
def characters() -> Characters:
    return Characters()


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def trainer(characters: Characters, folder: Path, **options: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=characters.vocabulary,
        n_positions=TOKENS,
        n_embd=32,
        n_layer=3,
        n_head=4,
        bos_token_id=0,
        eos_token_id=0,
    )
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        **{
            "max_steps": 12, "per_device_train_batch_size": 8, "logging_steps": 4, "report_to": [], "use_cpu": True,
            "save_strategy": "no", "disable_tqdm": True, "learning_rate": 1e-3, "seed": 0, **options,
        },
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config)
    return transformers.Trainer(model=model, args=arguments, train_dataset=characters)


def callback(**options: Any) -> Any:
    from dynstab.monitor.transformers import StabilityCallback

    return StabilityCallback(**{"every": 5, "share": None, **options})


def test_a_training_leaves_its_run_and_logs_through_the_trainer(characters: Characters, tmp_path: Path) -> None:
    watched = trainer(characters, tmp_path)
    callback(run=tmp_path / "a.sqlite", sharpness=True, sharpness_every=5).attach(watched)
    watched.train()
    run = read_run(tmp_path / "a.sqlite")
    assert run.finished and run.info.optimizer == "AdamW"
    assert [signal.step for signal in run.signals] == list(range(12))
    assert [probe.step for probe in run.probes] == [0, 5, 10]
    assert len(run.probes[0].step_gains) == len(run.info.steps) >= 6
    assert all(probe.sharpness is not None and probe.sharpness.measured for probe in run.probes)
    logged = watched.state.log_history
    means = [entry["loss"] for entry in logged if "loss" in entry]
    losses = [signal.loss or 0.0 for signal in run.signals]
    assert means == pytest.approx([sum(losses[i : i + 4]) / 4 for i in (0, 4, 8)], abs=2e-4)
    exponents = {
        entry["step"]: entry["dynstab/leading_exponent"] for entry in logged if "dynstab/leading_exponent" in entry
    }
    assert exponents == {probe.step + 1: pytest.approx(probe.exponents[0], rel=1e-6) for probe in run.probes}
    assert {entry["step"] for entry in logged if "dynstab/gradient_norm" in entry} == {4, 8, 12}


def test_the_training_is_the_same_without_it(characters: Characters, tmp_path: Path) -> None:
    plain, watched = trainer(characters, tmp_path), trainer(characters, tmp_path)
    callback(run=tmp_path / "a.sqlite").attach(watched)
    for each in (plain, watched):
        torch.manual_seed(1)
        each.train()
    losses = [[entry["loss"] for entry in each.state.log_history if "loss" in entry] for each in (plain, watched)]
    assert losses[0] == losses[1] and len(losses[0]) == 3
    same = zip(plain.model.parameters(), watched.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)


def test_batches_that_accumulate_are_one_step(characters: Characters, tmp_path: Path) -> None:
    watched = trainer(characters, tmp_path, gradient_accumulation_steps=3, max_steps=4, logging_steps=1)
    callback(run=tmp_path / "a.sqlite", probe=None).attach(watched)
    watched.train()
    run = read_run(tmp_path / "a.sqlite")
    assert [signal.step for signal in run.signals] == list(range(4))
    means = [entry["loss"] for entry in watched.state.log_history if "loss" in entry]
    assert [signal.loss for signal in run.signals] == pytest.approx(means, abs=2e-4)


def test_a_resumed_training_goes_on_in_the_same_store(characters: Characters, tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 6}
    first = trainer(characters, tmp_path, max_steps=9, **saving)
    callback(run=tmp_path / "a.sqlite").attach(first)
    first.train()
    second = trainer(characters, tmp_path, **saving)
    callback(run=tmp_path / "b.sqlite").attach(second)
    second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    run = read_run(tmp_path / "a.sqlite")
    assert [signal.step for signal in run.signals] == list(range(12))
    assert not (tmp_path / "b.sqlite").exists()


def test_an_exception_leaves_the_run_whole_and_the_trainer_can_train_again(
    characters: Characters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = trainer(characters, tmp_path)
    inner, calls = watched.training_step, []

    def failing(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 6:
            raise RuntimeError("broken")
        return inner(*arguments, **named)

    watched.training_step = failing
    callback(run=tmp_path / "a.sqlite", probe=None).attach(watched)
    with pytest.raises(RuntimeError, match="broken"):
        watched.train()
    run = read_run(tmp_path / "a.sqlite")
    assert not run.finished and [signal.step for signal in run.signals] == list(range(5))
    watched.train()
    assert read_run(tmp_path / "a-2.sqlite").finished


def test_a_finding_can_end_the_training(characters: Characters, tmp_path: Path) -> None:
    from dynstab import StopTraining

    def stop(incident: Any) -> None:
        raise StopTraining("enough")

    watched = trainer(characters, tmp_path, max_steps=150, learning_rate=1e3, max_grad_norm=0.0, optim="sgd")
    callback(run=tmp_path / "a.sqlite", on_flag=stop, probe=None).attach(watched)
    watched.train()
    run = read_run(tmp_path / "a.sqlite")
    assert run.finished and run.incidents and watched.state.global_step < 150


def test_a_callback_without_its_trainer_says_what_to_do(characters: Characters, tmp_path: Path) -> None:
    from dynstab import DynstabError

    alone = trainer(characters, tmp_path)
    alone.add_callback(callback(probe=None))
    with pytest.raises(DynstabError, match=r"callback.attach\(trainer\), then train"):
        alone.train()
