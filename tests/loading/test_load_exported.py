"""Exported programs: live modules with their own example inputs, and nothing but torch.export's language inside."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from dynstab.core.errors import LoadError, UnsafePickle
from dynstab.loading import infer_inputs, load


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[nn.Module, torch.Tensor, Path]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Dropout(0.5), nn.BatchNorm1d(4)).eval()
        x = torch.randn(5, 3)
    path = tmp_path_factory.mktemp("exported") / "program.bin"
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=2, max=64)},))
    with path.open("wb") as file:  # an open file, so that torch does not insist on a suffix
        torch.export.save(program, file)
    return model, x, path


def test_an_exported_program_is_a_live_module(exported):
    model, x, path = exported
    loaded = load(path)
    assert (loaded.format, loaded.trusted) == ("exported program", False)
    probe = x.clone().requires_grad_(True)
    loaded.module(probe).square().sum().backward()
    twin = x.clone().requires_grad_(True)
    model(twin).square().sum().backward()
    torch.testing.assert_close(probe.grad, twin.grad)
    with torch.no_grad():
        torch.testing.assert_close(loaded.module(x), model(x))
        for each in loaded.module.parameters():
            each.add_(0.1)
        assert not torch.allclose(loaded.module(x), model(x))


def test_its_example_inputs_come_along(exported):
    _, x, path = exported
    loaded = load(path)
    inputs = infer_inputs(loaded, samples=3)
    assert torch.equal(inputs.args[0], x) and not inputs.made_up
    assert "float32 (5, 3)" in inputs.description[0]


def test_modes_and_dtypes_can_be_set_without_an_error(exported):
    _, x, path = exported
    module = load(path).module
    module.train()
    module.eval()
    assert not module.training
    assert module.double()(x[:3].double()).dtype == torch.float64


def test_symbolic_sizes_and_functions_of_them_pass_the_check(tmp_path):
    class Sizes(nn.Module):
        def forward(self, x, y):
            return x.reshape(x.shape[0] * 6).sum() + torch.ones(x.shape[0] // 2 + 3).sum() + y.sum()

    rows = torch.export.Dim("rows", min=2, max=50)
    program = torch.export.export(Sizes(), (torch.ones(4, 6), torch.ones(4, 6)), dynamic_shapes=({0: rows}, {0: rows}))
    with (tmp_path / "p").open("wb") as file:
        torch.export.save(program, file)
    assert load(tmp_path / "p").module(torch.ones(4, 6), torch.ones(4, 6)).item() == 24 + 5 + 24


def rewritten(source: Path, target: Path, change) -> Path:
    """A copy of an archive in which `change(record, data)` rewrites the records."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return target


def in_graph(change):
    """Apply a change to the JSON of the program."""

    def apply(name: str, data: bytes) -> bytes:
        if not name.endswith("models/model.json"):
            return data
        program = json.loads(data)
        change(program)
        return json.dumps(program).encode()

    return apply


def expression(text: str):
    def change(program) -> None:
        sizes = program["graph_module"]["graph"]["tensor_values"]["input"]["sizes"]
        sizes[0]["as_expr"]["expr_str"] = text

    return in_graph(change)


def target(text: str):
    def change(program) -> None:
        program["graph_module"]["graph"]["nodes"][0]["target"] = text

    return in_graph(change)


def parameter(text: str):
    def change(program) -> None:
        spec = program["graph_module"]["signature"]["input_specs"][0]["parameter"]
        spec["parameter_name"] = text

    return in_graph(change)


@pytest.mark.parametrize(
    "change",
    [
        expression("__import__('os').mkdir('{victim}')"),
        expression("Symbol('s0', positive=True).__class__"),
        expression("exec(chr(49))"),
        target("torch.os.mkdir"),
        target("torch.hub.load"),
        target("torch.ops.load_library.__call__"),
        target("_operator.attrgetter"),
        target("torch.ops.aten.save.default"),
        parameter('0"), print("x'),
    ],
)
def test_a_program_beyond_the_language_of_export_is_not_read(change, exported, tmp_path):
    path = rewritten(exported[2], tmp_path / "evil", change)
    with pytest.raises(UnsafePickle, match="nothing was executed"):
        load(path)


def test_a_payload_among_the_example_inputs_is_not_executed(exported, tmp_path):
    victim = tmp_path / "touched"

    class Touch:
        def __reduce__(self):
            return os.mkdir, (str(victim),)

    buffer = io.BytesIO()
    torch.save(Touch(), buffer)
    path = rewritten(
        exported[2],
        tmp_path / "evil",
        lambda name, data: buffer.getvalue() if "sample_inputs" in name else data,
    )
    with pytest.raises(UnsafePickle, match="mkdir"):
        load(path)
    assert not victim.exists()
    # The payload is live: torch itself falls back to executing it.
    with pytest.raises(LoadError):
        load(path, trust_pickle=True)
    assert victim.exists()


def payload(name: str, **entry):
    """Another entry in the table of weights or constants, with a plain old pickle as its record."""
    folder = "weights" if name.startswith("weight") else "constants"

    def build(source: Path, path: Path, pickled: bytes) -> Path:
        def change(record: str, data: bytes) -> bytes:
            if not record.endswith(f"data/{folder}/model_{folder}_config.json"):
                return data
            table = json.loads(data)
            table["config"]["added"] = {"path_name": name, "is_param": False, "tensor_meta": None, **entry}
            return json.dumps(table).encode()

        rewritten(source, path, change)
        with zipfile.ZipFile(path, "a") as archive:
            top = archive.namelist()[0].partition("/")[0]
            archive.writestr(f"{top}/data/{folder}/{name}", pickled)
        return path

    return build


@pytest.mark.parametrize(
    "build",
    [
        payload("opaque_obj_0", use_pickle=True),
        payload("weight_77", use_pickle=True),
        payload("weight_77", use_pickle=1),
        payload("tensor_0", use_pickle=True),
    ],
)
def test_a_pickle_of_any_protocol_among_weights_and_constants_is_not_executed(build, exported, tmp_path):
    victim = tmp_path / "touched"

    class Touch:
        def __reduce__(self):
            return os.mkdir, (str(victim),)

    # Protocol 0 has no head by which it could be told.
    path = build(exported[2], tmp_path / "evil", pickle.dumps(Touch(), protocol=0))
    with pytest.raises(UnsafePickle, match="mkdir"):
        load(path)
    assert not victim.exists()
    with pytest.raises(LoadError):
        load(path, trust_pickle=True)
    assert victim.exists()  # the payload is live


def test_compiled_code_inside_a_program_is_not_run(exported, tmp_path):
    path = rewritten(exported[2], tmp_path / "evil", lambda name, data: data)
    with zipfile.ZipFile(path, "a") as archive:
        top = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{top}/data/aotinductor/model/model.so", b"\x7fELF")
    with pytest.raises(UnsafePickle, match="compiled code"):
        load(path)


def test_weights_whose_bytes_begin_like_a_pickle_or_an_archive_are_numbers(exported, tmp_path):
    model, x = copy.deepcopy(exported[:2])
    with torch.no_grad():
        like_a_pickle, like_an_archive = (
            torch.frombuffer(bytearray(head), dtype=torch.float32).item()
            for head in (b"\x80\x02\x1e\x3e", b"PK\x03\x04")
        )
        model[0].weight[0, 0], model[0].bias[0] = like_a_pickle, like_an_archive
    with (tmp_path / "numbers").open("wb") as file:
        torch.export.save(torch.export.export(model, (x,)), file)
    torch.testing.assert_close(load(tmp_path / "numbers").module(x), model(x))


def test_two_records_of_one_name_are_refused(exported, tmp_path):
    path = rewritten(exported[2], tmp_path / "twice", lambda name, data: data)
    with zipfile.ZipFile(path) as archive:
        first = archive.namelist()[0]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other/" + first.partition("/")[2], b"")
    with pytest.raises(UnsafePickle, match="two records"):
        load(path)


def test_a_damaged_program_is_a_load_error(exported, tmp_path):
    path = rewritten(exported[2], tmp_path / "m", in_graph(lambda program: program.pop("graph_module")))
    with pytest.raises(LoadError, match="cannot read"):
        load(path)
