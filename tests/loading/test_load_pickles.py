"""Files of torch.save: standard layers load without trust, anything else is never executed."""

from __future__ import annotations

import importlib
import os
import pickle
import sys
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dynstab.core.errors import LoadError, UnsafePickle
from dynstab.loading import load


class Touch:
    """A payload: unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class OwnLayer(nn.Module):
    """A class that torch does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, x):
        return self.inner(x)


def transformer(activation) -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation=activation)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


STANDARD = {
    "mlp": lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Dropout(0.1), nn.LayerNorm(4), nn.Linear(4, 2)),
    "convolutions": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ),
    "recurrent": lambda: nn.ModuleDict({"lstm": nn.LSTM(3, 4), "gru": nn.GRU(3, 4), "cell": nn.GRUCell(3, 4)}),
    "transformer with relu": lambda: transformer(F.relu),
    "transformer with gelu": lambda: transformer(F.gelu),
    "transformer with torch.relu": lambda: transformer(torch.relu),
    "attention": lambda: nn.MultiheadAttention(8, 2),
    "containers": lambda: nn.ModuleList([nn.ParameterList([torch.ones(2)]), nn.Embedding(4, 2), nn.Identity()]),
    "normalised": lambda: nn.Sequential(nn.GroupNorm(1, 4), nn.RMSNorm(4), nn.InstanceNorm1d(4), nn.PReLU()),
}


def states_equal(first: nn.Module, second: nn.Module) -> bool:
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("name", STANDARD)
def test_a_model_of_standard_layers_loads_without_trust(name, tmp_path):
    model = STANDARD[name]()
    path = tmp_path / "model.weights"  # the suffix says nothing
    torch.save(model, path)
    loaded = load(path)
    assert states_equal(loaded.module, model)
    assert (loaded.format, loaded.trusted, loaded.source) == ("torch.save, module", False, str(path))
    # One round through `repr` proves that the whole tree is what it was.
    assert repr(loaded.module) == repr(model)


def test_the_loaded_module_computes_what_the_saved_one_did(tmp_path):
    model = transformer(F.gelu).eval()
    torch.save(model, tmp_path / "m")
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(load(tmp_path / "m").module(x), model(x), rtol=0, atol=0)


@pytest.mark.parametrize("how", ["zip", "legacy", "plain protocol 2", "plain protocol 4", "beside weights"])
def test_a_payload_is_named_and_never_executed(how, tmp_path):
    victim, path = tmp_path / "touched", tmp_path / "model.pt"
    payload = Touch(victim)
    if how.startswith("plain"):
        path.write_bytes(pickle.dumps(payload, protocol=int(how[-1])))
    else:
        value = {"state_dict": {"w": torch.ones(2)}, "extra": payload} if how == "beside weights" else payload
        torch.save(value, path, _use_new_zipfile_serialization=how != "legacy")
    with pytest.raises(UnsafePickle) as caught:
        load(path)
    assert not victim.exists()
    message = str(caught.value)
    assert "nothing was executed" in message and "mkdir" in message
    assert all(way in message for way in ("state_dict", "--allow-global", "--trust-pickle"))
    # The payload is live: trusting it does execute it.
    with pytest.raises(LoadError):
        load(path, trust_pickle=True)
    assert victim.exists()


def test_allowing_os_functions_by_name_does_not_open_them(tmp_path):
    victim = tmp_path / "touched"
    torch.save(Touch(victim), tmp_path / "m")
    with pytest.raises(UnsafePickle):
        load(tmp_path / "m", allow_globals=["posix.mkdir"])
    assert not victim.exists()


def test_a_class_of_ones_own_loads_when_it_is_named_or_trusted(tmp_path):
    model, path = OwnLayer(), tmp_path / "own.pt"
    torch.save(model, path)
    name = f"{OwnLayer.__module__}.OwnLayer"
    with pytest.raises(UnsafePickle, match="OwnLayer"):
        load(path)
    named, trusted = load(path, allow_globals=[name]), load(path, trust_pickle=True)
    assert not named.trusted and trusted.trusted
    assert states_equal(named.module, model) and states_equal(trusted.module, model)
    # What was allowed once is not allowed for good.
    with pytest.raises(UnsafePickle):
        load(path)


@pytest.mark.parametrize("way", [{"allow_globals": ["own_layers.Layer"]}, {"trust_pickle": True}])
def test_a_class_from_a_file_in_this_folder_is_found_as_by_a_reference(way, tmp_path, monkeypatch):
    (tmp_path / "own_layers.py").write_text("import torch\nclass Layer(torch.nn.Linear): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    torch.save(importlib.import_module("own_layers").Layer(2, 2), tmp_path / "own.pt")
    monkeypatch.undo()
    monkeypatch.delitem(sys.modules, "own_layers")
    monkeypatch.chdir(tmp_path)
    assert type(load(tmp_path / "own.pt", **way).module).__name__ == "Layer"
    assert str(tmp_path) not in sys.path
    del sys.modules["own_layers"]


def test_a_global_that_cannot_be_imported_is_a_clear_error(tmp_path):
    torch.save(nn.Linear(1, 1), tmp_path / "m")
    with pytest.raises(LoadError, match="no_such_package"):
        load(tmp_path / "m", allow_globals=["no_such_package.Thing"])


class Disguise(nn.Linear):
    """Pickles as a plain nn.Linear with an attribute in a method's place."""

    def __reduce__(self):
        return nn.Linear, (2, 2), self.state

    state: dict


@pytest.mark.parametrize("slot", ["forward", "eval", "_forward_hooks", "_compiled_call_impl"])
def test_an_attribute_in_a_methods_place_is_refused(slot, tmp_path):
    model = Disguise(2, 2)
    state = dict(vars(nn.Linear(2, 2)))
    state[slot] = {0: F.relu} if slot.endswith("hooks") else F.relu
    model.state = state
    torch.save(nn.Sequential(model), tmp_path / "m")
    with pytest.raises(UnsafePickle, match=slot):
        load(tmp_path / "m")


class GetAttribute:
    """Reaches for a function of torch through `getattr`, as torch.relu is pickled."""

    def __reduce__(self):
        return getattr, (torch.relu.__self__, "from_file")


def test_getattr_gives_activations_and_nothing_else(tmp_path):
    torch.save(GetAttribute(), tmp_path / "m")
    with pytest.raises(UnsafePickle, match="from_file"):
        load(tmp_path / "m")


def test_no_allowed_name_reaches_files_or_processes():
    from dynstab.loading.safe_pickle import allowed_globals

    for name, value in allowed_globals().items():
        is_layer = isinstance(value, type) and issubclass(value, nn.Module)
        assert (
            is_layer or name.startswith(("torch.nn.functional.", "torch._C.", "torch.")) or name == "builtins.getattr"
        )
        assert not any(word in name for word in ("load", "save", "hub", "open", "partial", "eval", "exec"))


def test_a_trusted_pickle_without_its_class_says_so(tmp_path):
    path = tmp_path / "m.pt"
    torch.save(OwnLayer(), path)
    module = OwnLayer.__module__.encode()
    path.write_bytes(path.read_bytes().replace(module, b"x" * len(module)))
    with warnings.catch_warnings(), pytest.raises(LoadError, match="truncated|damaged|cannot be (imported|unpickled)"):
        load(path, trust_pickle=True)


def test_a_checkpoint_that_holds_a_module_gives_the_module(tmp_path):
    model = nn.Linear(2, 2)
    torch.save({"epoch": 3, "ema_model": model}, tmp_path / "c.pt")
    loaded = load(tmp_path / "c.pt")
    assert states_equal(loaded.module, model)
    assert "ema_model" in loaded.notes[0]


def test_a_checkpoint_of_several_modules_asks_for_one(tmp_path):
    torch.save({"net": nn.Linear(2, 2), "ema": nn.Linear(2, 2)}, tmp_path / "c.pt")
    with pytest.raises(LoadError, match="holds 2 modules: 'net', 'ema'; expected one; save the one"):
        load(tmp_path / "c.pt")


def test_a_legacy_module_asks_to_be_saved_again(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(nn.Linear(2, 2), tmp_path / "m.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(UnsafePickle, match="save it again"):
        load(tmp_path / "m.pt")
    assert isinstance(load(tmp_path / "m.pt", trust_pickle=True).module, nn.Linear)


def test_loading_leaves_the_random_state_alone(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "m.pt")
    before = torch.get_rng_state()
    load(tmp_path / "m.pt")
    assert torch.equal(torch.get_rng_state(), before)
