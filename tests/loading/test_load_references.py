"""References and objects: the user's own code, imported, called, and blamed by file and line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from dynstab.core.errors import InputError, LoadError
from dynstab.loading import as_inputs, load

SOURCE = """
import sys
from torch import nn, ones
from neighbour import WIDTH

def build():
    return nn.Linear(WIDTH, 2)

def with_inputs():
    return build(), ones(5, WIDTH)

def with_named_inputs():
    return build(), {"input": ones(5, WIDTH)}

def with_argument(width, depth=2):
    return nn.Linear(width, depth)

def failing():
    raise ValueError("the weights are on another disk\\nsecond line")

def leaving():
    sys.exit(3)

def wrong():
    return "a string"

ready = nn.Linear(WIDTH, 3)
number = 7

class Zoo:
    Small = nn.Identity
"""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    (tmp_path / "neighbour.py").write_text("WIDTH = 4\n")
    path = tmp_path / "models.py"
    path.write_text(SOURCE)
    yield path
    sys.modules.pop("neighbour", None)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("build", nn.Linear), ("ready", nn.Linear), ("Zoo.Small", nn.Identity), ("with_inputs", nn.Linear)],
)
def test_a_reference_is_a_factory_or_a_module(name, kind, models):
    before = list(sys.path)
    loaded = load(f"{models}:{name}")
    assert type(loaded.module) is kind and loaded.format == "reference"
    assert sys.path == before


def test_the_inputs_of_a_factory_come_along(models):
    positional, named = load(f"{models}:with_inputs").inputs, load(f"{models}:with_named_inputs").inputs
    assert positional is not None and torch.equal(positional.args[0], torch.ones(5, 4)) and not positional.made_up
    assert named is not None and list(named.kwargs) == ["input"]
    assert "float32 (5, 4)" in named.description[0]


def test_two_files_of_one_name_do_not_meet(tmp_path):
    for folder, width in (("a", 3), ("b", 5)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model.py").write_text(f"from torch import nn\nbuild = lambda: nn.Linear({width}, 1)\n")
    assert load(f"{tmp_path}/a/model.py:build").module.in_features == 3
    assert load(f"{tmp_path}/b/model.py:build").module.in_features == 5


def test_a_package_is_found_from_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "zoo_for_this_test.py").write_text("from torch import nn\nclass Net(nn.Identity): pass\n")
    monkeypatch.chdir(tmp_path)
    assert type(load("zoo_for_this_test:Net").module).__name__ == "Net"
    sys.modules.pop("zoo_for_this_test")


def test_installed_packages_are_references_too():
    assert type(load("torch.nn:Identity").module) is nn.Identity


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("absent", r"no attribute 'absent'; it has .*build"),
        ("failing", r"raised ValueError: the weights are on another disk at models.py:19"),
        ("leaving", "raised SystemExit: 3"),
        ("wrong", "gave str; expected a module"),
        ("number", "is int; expected a module"),
        ("with_argument", r"needs arguments \(width\)"),
    ],
)
def test_a_bad_factory_is_named_with_its_reason(name, words, models):
    with pytest.raises(LoadError, match=words):
        load(f"{models}:{name}")


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("no_such_package_anywhere:build", "no module 'no_such_package_anywhere'"),
        ("torch.no_such_part:build", "no module 'torch.no_such_part'"),
        ("missing/file.py:build", "no file 'missing/file.py'"),
    ],
)
def test_a_missing_module_or_file_is_named(reference, words):
    with pytest.raises(LoadError, match=words):
        load(reference)


def test_a_file_that_fails_to_import_is_blamed_and_forgotten(tmp_path):
    (tmp_path / "broken.py").write_text("x = 1\nimport no_such_dependency\n")
    before = set(sys.modules)
    with pytest.raises(LoadError, match=r"importing .*broken.py raised ModuleNotFoundError: .*no_such_dependency"):
        load(f"{tmp_path}/broken.py:build")
    assert not {name for name in set(sys.modules) - before if "broken" in name}


def test_a_bad_architecture_reference_is_explained(tmp_path):
    torch.save({"w": torch.ones(1)}, tmp_path / "w")
    with pytest.raises(LoadError, match="expected package.module:factory or path/file.py:factory"):
        load(tmp_path / "w", model="just_a_name")


def test_modules_and_callables_are_targets(models):
    module = nn.Linear(2, 2).train()
    assert load(module).module is module and module.training
    loaded = load(lambda: (nn.Linear(2, 2), torch.ones(3, 2)))
    assert loaded.format == "factory" and loaded.inputs is not None
    with pytest.raises(LoadError, match="is int"):
        load(3)  # type: ignore[arg-type]


def test_inputs_are_a_tensor_a_tuple_or_a_dictionary():
    x = torch.ones(2, 3)
    assert as_inputs(x).args == (x,)
    assert as_inputs([x, None]).args == (x, None)
    assert as_inputs({"x": x}).kwargs == {"x": x}
    assert as_inputs({"x": x}).description == ("x=float32 (2, 3) (given)",)
    for bad in (3, {1: x}, (), (None,)):
        with pytest.raises(InputError):
            as_inputs(bad)
