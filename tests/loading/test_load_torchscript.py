"""TorchScript becomes plain modules whose parameters are alive."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn

from dynstab.core.errors import UnsafePickle
from dynstab.loading import load


class Branching(nn.Module):
    """Submodules, a loop over data, a branch on data, lists, a default argument and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
        self.norm = nn.LayerNorm(4)
        self.drop = nn.Dropout(0.1)
        self.register_buffer("shift", torch.full((4,), 0.5))

    def forward(self, x, scale: float = 1.0):
        for layer in self.layers:
            x = x + self.drop(torch.relu(layer(x))) * scale
        if x.sum() > 0:
            x = x * 0.5 + self.shift
        rows = []
        for i in range(x.size(0)):
            rows.append(x[i] * (i + 1))
        return self.norm(torch.stack(rows)), x.shape[0]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x):
        output, _ = self.cell(x)
        return output


class Saving(nn.Module):
    def forward(self, x):
        torch.save(x, "stolen.bin")
        return x


def transformer() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2, enable_nested_tensor=False)


CASES = {
    "branching": (Branching, (2, 4)),
    "recurrent": (Recurrent, (2, 5, 3)),
    "transformer": (transformer, (2, 5, 8)),
    "convolutions": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.MaxPool2d(2), nn.Flatten()),
        (2, 3, 8, 8),
    ),
    "upsampling": (
        lambda: nn.Sequential(nn.ConvTranspose2d(3, 2, 3), nn.Upsample(scale_factor=2, mode="bilinear")),
        (2, 3, 4, 4),
    ),
}


def scripted(model: nn.Module, example: torch.Tensor, how: str):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces that TorchScript will retire
        return torch.jit.script(model) if how == "script" else torch.jit.trace(model, example, check_trace=False)


def saved(model: nn.Module, example: torch.Tensor, how: str, path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(scripted(model, example, how), str(path))


def first(output):
    return output[0] if isinstance(output, tuple) else output


@pytest.mark.parametrize("how", ["script", "trace"])
@pytest.mark.parametrize("name", CASES)
def test_a_torchscript_file_is_a_live_module(name, how, tmp_path):
    make, shape = CASES[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x = make().eval(), torch.randn(shape)
    saved(model, x, how, tmp_path / "m.bin")
    loaded = load(tmp_path / "m.bin")
    assert loaded.format == "TorchScript" and not loaded.module.training
    expected = first(model(x))
    torch.testing.assert_close(first(loaded.module(x)), expected, rtol=1e-5, atol=1e-6)

    x.requires_grad_(True)
    first(loaded.module(x)).square().sum().backward()
    own = x.grad.clone()
    x.grad = None
    first(model(x)).square().sum().backward()
    torch.testing.assert_close(own, x.grad, rtol=1e-4, atol=1e-5)
    gradients = {name: each.grad for name, each in loaded.module.named_parameters()}
    assert gradients.keys() == dict(model.named_parameters()).keys()
    for key, each in model.named_parameters():
        torch.testing.assert_close(gradients[key], each.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_new_parameter_values_change_the_output(name, tmp_path):
    make, shape = CASES[name]
    model, x = make().eval(), torch.ones(shape)
    saved(model, x, "script", tmp_path / "m")
    module = load(tmp_path / "m").module
    changed = {key: each + 0.1 * torch.ones_like(each) for key, each in module.named_parameters()}
    with torch.no_grad():
        before = first(module(x))
        through_call = first(torch.func.functional_call(module, changed, (x,)))
        for key, each in module.named_parameters():
            each.copy_(changed[key])
        for key, each in model.named_parameters():
            each.copy_(changed[key])
        torch.testing.assert_close(first(module(x)), through_call, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(first(model(x)), through_call, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(before, through_call)


def test_modules_keep_their_names_and_their_hooks_fire(tmp_path):
    saved(Branching().eval(), torch.ones(2, 4), "script", tmp_path / "m")
    module = load(tmp_path / "m").module
    called = []
    for name, each in module.named_modules():
        each.register_forward_hook(lambda *_, name=name: called.append(name))
    module(torch.ones(2, 4))
    assert called == ["layers.0", "drop", "layers.1", "drop", "layers.2", "drop", "norm", ""]


def test_branches_follow_the_data(tmp_path):
    model = Branching().eval()
    saved(model, torch.ones(2, 4), "script", tmp_path / "m")
    module = load(tmp_path / "m").module
    for x in (torch.full((3, 4), 5.0), torch.full((1, 4), -5.0)):
        torch.testing.assert_close(module(x)[0], model(x)[0], rtol=1e-5, atol=1e-6)
        assert module(x)[1] == len(x)


def test_arguments_are_those_of_the_scripted_forward(tmp_path):
    model = Branching().eval()
    saved(model, torch.ones(2, 4), "script", tmp_path / "m")
    module = load(tmp_path / "m").module
    x = torch.ones(2, 4)
    torch.testing.assert_close(module(x, scale=0.25)[0], model(x, 0.25)[0])
    with pytest.raises(TypeError, match="'x'"):
        module(scale=1.0)
    with pytest.raises(TypeError, match="wrong"):
        module(x, wrong=1)


def test_training_mode_and_copies_work_as_on_any_module(tmp_path):
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    saved(model.train(), torch.ones(2, 4), "script", tmp_path / "m")
    module = load(tmp_path / "m").module
    assert module.training
    twin = copy.deepcopy(module).double().eval()
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    assert twin(x.double()).dtype == torch.float64
    module(x)
    statistics = dict(module.named_buffers())
    assert int(statistics["1.num_batches_tracked"]) == 1
    assert not torch.equal(statistics["1.running_mean"], dict(twin.named_buffers())["1.running_mean"].float())
    module.eval()
    assert torch.equal(module(x), module(x))


def test_a_tied_weight_stays_tied(tmp_path):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    saved(model, torch.ones(1, 3), "script", tmp_path / "m")
    module = load(tmp_path / "m").module
    weights = [each.weight for each in module.children()]
    assert weights[0] is weights[1]


def test_code_that_writes_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved(Saving(), torch.ones(1), "script", tmp_path / "m")
    with pytest.raises(UnsafePickle, match="save"):
        load(tmp_path / "m")
    assert not (tmp_path / "stolen.bin").exists()
