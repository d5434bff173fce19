"""A small character-level transformer trained by transformers' Trainer, watched by a callback.

It learns the documentation of Python's own standard library. What the probes find goes through
`trainer.log` to whatever the trainer reports to, and into the run's file.

    python examples/monitor_trainer.py
    dynstab render runs/trainer.sqlite --html run.html
"""

from __future__ import annotations

import argparse
import collections
import json
import pathlib
import random
import statistics
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from dynstab.core.run import Run
from dynstab.monitor.store import read_run
from dynstab.monitor.transformers import StabilityCallback

TOKENS = 32


class Characters(Dataset):
    """Windows of the documentation of a few modules."""

    def __init__(self) -> None:
        modules = (argparse, collections, json, pathlib, random, statistics)
        text = "\n".join(module.__doc__ or "" for module in modules)
        letters = sorted(set(text))
        self.vocabulary = len(letters)
        self.characters = torch.tensor([letters.index(letter) for letter in text])

    def __len__(self) -> int:
        return len(self.characters) - TOKENS

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        window = self.characters[index : index + TOKENS]
        return {"input_ids": window, "labels": window}


def main(*, steps: int = 200, run: str = "runs/trainer.sqlite", every: int = 20, out: str = "runs/trainer") -> Run:
    torch.manual_seed(0)
    text = Characters()
    config = GPT2Config(
        vocab_size=text.vocabulary, n_positions=TOKENS, n_embd=64, n_layer=4, n_head=4, bos_token_id=0, eos_token_id=0
    )
    arguments = TrainingArguments(
        output_dir=out, max_steps=steps, per_device_train_batch_size=16, learning_rate=3e-3, warmup_steps=20,
        logging_steps=50, save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(model=GPT2LMHeadModel(config), args=arguments, train_dataset=text)
    stability = StabilityCallback(run=run, every=every, sharpness=True, sharpness_every=2 * every, share=None).attach(
        trainer
    )
    trainer.train()
    path = Path(run) if stability.path is None else stability.path
    print(f"\ndynstab render {path} --html run.html   # the report over time\n")
    found = read_run(path)
    print(found)
    return found


if __name__ == "__main__":
    main()
