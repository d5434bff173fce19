"""The Lightning callback in real trainings on handwritten digits."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dynstab.monitor.store import read_run

pytestmark = pytest.mark.filterwarnings("ignore")
lightning = pytest.importorskip("lightning.pytorch", reason="pip install 'dynstab[lightning]'")
datasets = pytest.importorskip("sklearn.datasets", reason="the digits come with scikit-learn")


class Digits(lightning.LightningModule):
    def __init__(self, rate: float = 0.05) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rate, self.losses = rate, []
        self.blocks = nn.Sequential(*(nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(3)), nn.Linear(64, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(x)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.rate, momentum=0.9)


@pytest.fixture(scope="module")
def loader() -> DataLoader:
    images, labels = datasets.load_digits(return_X_y=True)
    return DataLoader(
        TensorDataset(torch.tensor(images, dtype=torch.float32) / 8 - 1, torch.tensor(labels)), batch_size=64
    )


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def trainer(folder: Path, callbacks: list[Any], **options: Any) -> Any:
    return lightning.Trainer(
        default_root_dir=folder, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=callbacks, **{"max_steps": 20, "enable_checkpointing": False, **options},
    )  # fmt: skip


def callback(**options: Any) -> Any:
    from dynstab.monitor.lightning import StabilityCallback

    return StabilityCallback(**{"every": 10, "share": None, **options})


def test_a_training_leaves_its_run(loader: DataLoader, tmp_path: Path) -> None:
    module = Digits()
    trainer(tmp_path, [callback(run=tmp_path / "a.sqlite")]).fit(module, loader)
    run = read_run(tmp_path / "a.sqlite")
    assert run.finished and run.info.optimizer == "SGD"
    assert [signal.step for signal in run.signals] == list(range(20))
    assert [signal.loss for signal in run.signals] == pytest.approx(module.losses, rel=1e-6)
    assert [probe.step for probe in run.probes] == [0, 10]
    assert len(run.probes[0].step_gains) == len(run.info.steps) > 2
    assert {signal.learning_rate for signal in run.signals} == {0.05}


def test_gradients_are_those_of_the_step_and_not_of_the_one_before(loader: DataLoader, tmp_path: Path) -> None:
    module, norms = Digits(), []

    class Note(lightning.Callback):
        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            norms.append(
                [torch.nn.utils.get_total_norm([p.grad for p in b.parameters()]).item() for b in module.blocks]
            )

    trainer(tmp_path, [callback(run=tmp_path / "a.sqlite", probe=None), Note()], max_steps=6).fit(module, loader)
    run = read_run(tmp_path / "a.sqlite")
    assert run.signals[0].gradient_norm == pytest.approx(norms[0], rel=1e-5)
    # The four groups take turns.
    found = [signal.gradient_norm[step % 4] for step, signal in enumerate(run.signals)]
    assert found == pytest.approx([blocks[step % 4] for step, blocks in enumerate(norms)], rel=1e-5)


def test_the_training_is_the_same_without_it(loader: DataLoader, tmp_path: Path) -> None:
    plain, watched = Digits(), Digits()
    trainer(tmp_path, []).fit(plain, loader)
    trainer(tmp_path, [callback(run=tmp_path / "a.sqlite")]).fit(watched, loader)
    assert plain.losses == watched.losses
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), watched.parameters(), strict=True))


def test_batches_that_accumulate_are_one_step_with_their_mean_loss(loader: DataLoader, tmp_path: Path) -> None:
    module = Digits()
    accumulate = {"accumulate_grad_batches": 4, "max_steps": 5}
    trainer(tmp_path, [callback(run=tmp_path / "a.sqlite", probe=None)], **accumulate).fit(module, loader)
    run = read_run(tmp_path / "a.sqlite")
    assert [signal.step for signal in run.signals] == list(range(5))
    means = [sum(module.losses[4 * i : 4 * i + 4]) / 4 for i in range(5)]
    assert [signal.loss for signal in run.signals] == pytest.approx(means, rel=1e-5)


def test_a_resumed_training_goes_on_in_the_same_store(loader: DataLoader, tmp_path: Path) -> None:
    checkpoint = tmp_path / "at-8.ckpt"

    class Save(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 8 and not checkpoint.exists():
                trainer.save_checkpoint(checkpoint)

    first = [callback(run=tmp_path / "a.sqlite"), Save()]
    trainer(tmp_path, first, max_steps=12).fit(Digits(), loader)
    trainer(tmp_path, [callback(run=tmp_path / "b.sqlite")]).fit(Digits(), loader, ckpt_path=checkpoint)
    run = read_run(tmp_path / "a.sqlite")
    assert [signal.step for signal in run.signals] == list(range(20))
    assert not (tmp_path / "b.sqlite").exists()
    seconds = [signal.seconds for signal in run.signals]
    assert seconds == sorted(seconds)


def test_a_trainer_that_fits_again_goes_on_in_the_same_store(loader: DataLoader, tmp_path: Path) -> None:
    watched, module = callback(run=tmp_path / "a.sqlite"), Digits()
    fitting = trainer(tmp_path, [watched], max_steps=5)
    fitting.fit(module, loader)
    fitting.fit_loop.epoch_loop.max_steps = 9
    fitting.fit_loop.max_epochs = 2
    fitting.fit(module, loader)
    assert [signal.step for signal in read_run(watched.path).signals] == list(range(9))
    assert watched.path == tmp_path / "a.sqlite"


def test_another_training_with_the_same_callback_has_a_run_of_its_own(loader: DataLoader, tmp_path: Path) -> None:
    watched = callback(run=tmp_path / "a.sqlite")
    for name in ("a.sqlite", "a-2.sqlite"):
        trainer(tmp_path, [watched], max_steps=3).fit(Digits(), loader)
        assert watched.path == tmp_path / name
        assert [signal.step for signal in read_run(watched.path).signals] == [0, 1, 2]


def test_a_finding_can_end_the_training(loader: DataLoader, tmp_path: Path) -> None:
    from dynstab import StopTraining

    def stop(incident: Any) -> None:
        raise StopTraining("enough")

    module = Digits(rate=1e6)
    watched = callback(run=tmp_path / "a.sqlite", on_flag=stop, probe=None)
    trainer(tmp_path, [watched], max_steps=200, max_epochs=20).fit(module, loader)
    run = read_run(tmp_path / "a.sqlite")
    assert run.finished and run.incidents
    assert len(module.losses) < 200


def test_an_exception_leaves_the_run_whole_and_unfinished(loader: DataLoader, tmp_path: Path) -> None:
    class Break(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 7:
                raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        trainer(tmp_path, [callback(run=tmp_path / "a.sqlite"), Break()]).fit(Digits(), loader)
    run = read_run(tmp_path / "a.sqlite")
    assert not run.finished and [signal.step for signal in run.signals] == list(range(7))
