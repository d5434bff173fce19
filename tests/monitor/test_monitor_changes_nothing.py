"""A training with a monitor is, bit for bit, the training without one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

import dynstab
from dynstab.monitor.store import read_run

STEPS = 9
Batches = list[tuple[Tensor, Tensor]]


class Transformer(nn.Module):
    """Three blocks with dropout; the head is tied to the embedding."""

    def __init__(self, remember: bool | None = None) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 16)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(16, 2, 32, dropout=0.2, batch_first=True, norm_first=True) for _ in range(3)
        )
        self.head = nn.Linear(16, 11)
        self.head.weight = self.embedding.weight
        self.reentrant = remember

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.embedding(tokens)
        for block in self.blocks:
            if self.reentrant is None:
                hidden = block(hidden)
            else:
                hidden = checkpoint(block, hidden, use_reentrant=self.reentrant)
        return self.head(hidden)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.norm(self.first(x)))


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.blocks = nn.Sequential(*(Block() for _ in range(3)))
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean(dim=(2, 3)))


def mlp() -> nn.Module:
    layers = [[nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3)] for _ in range(3)]
    return nn.Sequential(*(layer for block in layers for layer in block), nn.Linear(6, 5))


def tokens() -> tuple[Tensor, Tensor]:
    drawn = torch.randint(0, 11, (6, 8))
    return drawn[:, :-1], drawn[:, 1:]


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, Tensor]]]] = {
    "mlp": (mlp, lambda: (torch.randn(8, 6), torch.randint(0, 5, (8,)))),
    "transformer": (Transformer, tokens),
    "resnet": (ResNet, lambda: (torch.randn(4, 1, 6, 6), torch.randint(0, 5, (4,)))),
}
OPTIMIZERS: dict[str, Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=1e-2),
}


def loss_of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    inputs, targets = batch
    return cross_entropy(model(inputs).flatten(0, -2), targets.flatten())


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    run: Path | None,
    *,
    accumulate: int = 1,
    autocast: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Everything that a training leaves behind."""
    torch.manual_seed(5)
    watching: Any = nullcontext()
    if run is not None:
        options = {"probe": batches[0], "every": 3, "share": None, "optimizer": optimizer, **options}
        watching = dynstab.Monitor(model, run=run, **options)
    losses = []
    with watching as monitor:
        for step in range(STEPS):
            optimizer.zero_grad()
            for micro in range(accumulate):
                with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                    loss = loss_of(model, batches[step * accumulate + micro])
                (loss / accumulate).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            losses.append(loss.detach().clone())
            if monitor is not None:
                monitor.step(step, loss=loss)
    return {
        "losses": losses,
        "weights": [tensor.clone() for tensor in model.state_dict().values()],
        "gradients": [p.grad for p in model.parameters()],
        "moments": [t for state in optimizer.state.values() for t in state.values() if isinstance(t, Tensor)],
        "random": [torch.get_rng_state()],
        "training": [torch.tensor([module.training for module in model.modules()])],
    }


def assert_same(bare: dict[str, Any], watched: dict[str, Any]) -> None:
    for name, tensors in bare.items():
        assert len(tensors) == len(watched[name])
        assert all(torch.equal(a, b) for a, b in zip(tensors, watched[name], strict=True)), name


def both(
    model: nn.Module,
    batch: Callable[[], tuple[Tensor, Tensor]],
    optimizer: Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer],
    path: Path,
    **options: Any,
) -> None:
    """Trains twice and compares; the monitored run must have measured something."""
    batches = [batch() for _ in range(STEPS * options.get("accumulate", 1))]
    twin = copy.deepcopy(model)
    training = {name: options.pop(name) for name in ("accumulate", "autocast") if name in options}
    bare = train(model, optimizer(model.parameters()), batches, None, **training)
    watched = train(twin, optimizer(twin.parameters()), batches, path, **training, **options)
    assert_same(bare, watched)
    run = read_run(path)
    assert len(run.signals) == STEPS
    assert [probe.step for probe in run.probes] == [0, 3, 6]
    assert all(probe.exponents for probe in run.probes)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model", MODELS)
def test_losses_weights_gradients_and_random_states_are_bit_for_bit_the_same(
    model: str, optimizer: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    make, batch = MODELS[model]
    both(make(), batch, OPTIMIZERS[optimizer], tmp_path / "run.sqlite", loss_fn=loss_of, sharpness_every=6)


def test_under_accumulation_clipping_and_autocast(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "run.sqlite"
    both(Transformer(), tokens, OPTIMIZERS["adamw"], path, accumulate=2, autocast=True)


@pytest.mark.parametrize("reentrant", [True, False])
def test_under_activation_checkpointing(reentrant: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "run.sqlite"
    both(Transformer(reentrant), tokens, OPTIMIZERS["sgd"], path)
    signal = read_run(path).signals[4]
    assert all(rms > 0 for rms in (*signal.activation_rms, *signal.gradient_rms))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch.compile's own, of an input
@pytest.mark.parametrize("way", ["wrapped", "in place", "blocks"])
def test_under_torch_compile(way: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ResNet()
    batches = [MODELS["resnet"][1]() for _ in range(STEPS)]
    results = []
    for run in (None, tmp_path / "run.sqlite"):
        torch.compiler.reset()
        own: nn.Module = copy.deepcopy(model)
        if way == "wrapped":
            own = torch.compile(own, backend="aot_eager")  # type: ignore[assignment]
        elif way == "in place":
            own.compile(backend="aot_eager")
        else:
            own.blocks = nn.Sequential(*(torch.compile(b, backend="aot_eager") for b in own.blocks))  # type: ignore[arg-type]
        results.append(train(own, OPTIMIZERS["sgd"](own.parameters()), batches, run))
    assert_same(*results)
    run = read_run(tmp_path / "run.sqlite")
    assert all(probe.exponents for probe in run.probes)
    assert run.info.groups == ("stem", "blocks.0", "blocks.1", "blocks.2", "head")
    # Compiled code is not listened to, but for its edges.
    assert run.info.places == (("blocks.0", "blocks.1", "blocks.2") if way == "blocks" else ())


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_a_compiled_function_that_calls_the_model_is_the_code_it_would_be_without_it(tmp_path: Path) -> None:
    """Hooks in it would bring guards that fail at each step, if they can be compiled at all."""
    found = []
    for run in (None, tmp_path / "run.sqlite"):
        torch.compiler.reset()
        torch.manual_seed(0)
        model, counter, losses = mlp(), CompileCounterWithBackend("aot_eager"), []
        optimizer = OPTIMIZERS["sgd"](model.parameters())
        compiled = torch.compile(lambda batch: loss_of(model, batch), backend=counter, fullgraph=True)  # noqa: B023
        with nullcontext() if run is None else dynstab.Monitor(model, run=run, optimizer=optimizer) as monitor:
            for step in range(STEPS):
                loss = compiled(MODELS["mlp"][1]())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
                if monitor is not None:
                    monitor.step(step, loss=loss)
        found.append((counter.frame_count, counter.op_count, losses))
    assert found[0] == found[1]
    assert min(read_run(tmp_path / "run.sqlite").signals[-1].gradient_norm) > 0


def traced_ops(model: nn.Module, inputs: Tensor) -> list[str]:
    traced: Any = torch.jit.trace(model, inputs)
    return [node.kind() for node in traced.inlined_graph.nodes()]


@pytest.mark.filterwarnings("ignore:.*jit.trace:DeprecationWarning")
def test_a_model_that_is_traced_or_exported_in_mid_run_is_the_model_alone(tmp_path: Path) -> None:
    model, inputs = mlp().eval(), torch.randn(4, 6)
    before = traced_ops(model, inputs)
    with dynstab.Monitor(model, run=tmp_path / "run.sqlite") as monitor:
        assert traced_ops(model, inputs) == before
        exported = torch.export.export(model, (inputs,))
        assert torch.equal(exported.module()(inputs), model(inputs))
        monitor.step(0)
    (signal,) = read_run(tmp_path / "run.sqlite").signals
    assert all(rms > 0 for rms in signal.activation_rms)


def test_the_model_has_no_hook_left_afterwards(tmp_path: Path) -> None:
    model = mlp()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    before = [copy.copy(vars(module)) for module in model.modules()]
    train(model, optimizer, [MODELS["mlp"][1]() for _ in range(STEPS)], tmp_path / "run.sqlite")
    for module, attributes in zip(model.modules(), before, strict=True):
        assert vars(module).keys() == attributes.keys()
        assert not module._forward_hooks and not module._forward_pre_hooks
    assert not optimizer._optimizer_step_pre_hooks


def test_a_copy_that_is_made_during_the_run_is_not_heard(tmp_path: Path) -> None:
    model = mlp()
    with dynstab.Monitor(model, run=tmp_path / "run.sqlite") as monitor:
        twin = copy.deepcopy(model)
        twin(torch.full((4, 6), 1e6)).sum().backward()
        torch.save(model, tmp_path / "model.pt")
        loaded = torch.load(tmp_path / "model.pt", weights_only=False)
        loaded(torch.full((4, 6), 1e6)).sum().backward()
        model(torch.randn(4, 6)).sum().backward()
        monitor.step(0)
    (signal,) = read_run(tmp_path / "run.sqlite").signals
    assert max(signal.activation_rms) < 10
