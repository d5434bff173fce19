"""Write the reports of this folder again: `make reports` (about ten minutes on two cores).

Each model is built, saved to a file, and analysed from that file by the command line, as a user would do it. The
training run is watched by `dynstab.Monitor` and rendered from its file.

    python reports/make.py                      # all
    python reports/make.py lstm diverging-run   # some
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from models import HERE, MODELS

import dynstab

sys.path.insert(0, str(HERE.parent / "tests" / "benchmarks"))

PAGES = ("gpt2-small", "exploding-mlp", "trained-transformer", "neural-ode")  # as HTML too, about 2 MB each
RUN, STEPS = "diverging-run", 420


def analyse(name: str, folder: Path) -> None:
    """The report of a model, and its page where it has one."""
    command = MODELS[name](folder)
    files = ["--json", str(HERE / f"{name}.json")]
    files += ["--html", str(HERE / f"{name}.html")] if name in PAGES else []
    print(name, *_dynstab("analyze", *command, *files, folder=folder)[:4], sep="\n", flush=True)


def watch(folder: Path) -> None:
    """A transformer on characters whose learning rate climbs until it diverges, and beyond: its records, its page."""
    from early_warning_runs import build, loss_of, ramp_characters

    training = build(ramp_characters, seed=0)
    model, optimizer = training.model, training.optimizer
    with dynstab.Monitor(
        model,
        probe=next(training.batches),
        every=10,
        sharpness_every=10,
        share=None,
        run=folder / f"{RUN}.sqlite",
        optimizer=optimizer,
        loss_fn=loss_of,
    ) as monitor:
        for step in range(STEPS):
            for group in optimizer.param_groups:
                group["lr"] = training.rate(step)
            loss = loss_of(model, next(training.batches))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            monitor.step(step, loss=loss)
    files = ["--jsonl", f"{RUN}.jsonl", "--html", f"{RUN}.html"]
    print(RUN, *_dynstab("render", f"{RUN}.sqlite", *files, folder=folder)[:4], sep="\n", flush=True)
    for old in HERE.glob(f"{RUN}.step-*.json"):
        old.unlink()
    for file in (f"{RUN}.jsonl", f"{RUN}.html", *(each.name for each in folder.glob(f"{RUN}.step-*.json"))):
        shutil.move(folder / file, HERE / file)


def _dynstab(*arguments: str, folder: Path) -> list[str]:
    """The lines that the command line prints."""
    command = [sys.executable, "-m", "dynstab", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr)
    done.check_returncode()
    return done.stdout.splitlines()


def main(names: list[str]) -> None:
    for name in names or [*MODELS, RUN]:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            if name == RUN:
                watch(Path(folder))
            else:
                analyse(name, Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
