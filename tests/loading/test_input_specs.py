"""The grammar of `--input`."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from dynstab.core.errors import InputError
from dynstab.loading import InputSpec, make_inputs, parse_spec


@pytest.mark.parametrize(
    ("text", "shape", "dtype", "name"),
    [
        ("randn:2,3", (2, 3), torch.float32, None),
        ("randn:4:float64", (4,), torch.float64, None),
        ("x=randn:2,3:bfloat16", (2, 3), torch.bfloat16, "x"),
        ("input_ids=randint:2,16:0..50257", (2, 16), torch.int64, "input_ids"),
        ("randint:5:-3..3:int32", (5,), torch.int32, None),
        ("zeros:2", (2,), torch.float32, None),
        ("mask=ones:2,2:bool", (2, 2), torch.bool, "mask"),
    ],
)
def test_a_specification_is_a_tensor(text, shape, dtype, name):
    args, kwargs, lines = make_inputs([text])
    value = kwargs[name] if name else args[0]
    assert tuple(value.shape) == shape and value.dtype == dtype
    assert lines == (text,)


specs = st.builds(
    lambda kind, shape, low, span, dtype, name: InputSpec(
        kind=kind,
        shape=tuple(shape),
        low=low if kind == "randint" else 0,
        high=low + span if kind == "randint" else 0,
        dtype=dtype,
        name=name,
    ),
    st.sampled_from(["randn", "randint", "zeros", "ones"]),
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.integers(-100, 100),
    st.integers(1, 100),
    st.sampled_from([None, torch.float32, torch.float64]),
    st.one_of(st.none(), st.sampled_from(["x", "input_ids", "_y2"])),
)


@given(specs)
def test_parsing_inverts_printing(spec):
    assert parse_spec(str(spec)) == spec


@pytest.mark.parametrize(
    "text",
    [
        "",
        "randn",
        "randn:",
        "randn:2,,3",
        "randn:2,x",
        "randn:2:0..3",
        "randint:2,3",
        "randint:2:5..5",
        "uniform:2,3",
        "randn:2:float128",
        "randn:2:int64",
        "2x=randn:2",
        "x=",
    ],
)
def test_what_is_no_specification_is_an_input_error(text):
    with pytest.raises(InputError, match="expected"):
        parse_spec(text)


def test_the_grammar_is_shown_with_an_example():
    with pytest.raises(InputError, match=r"randint:2,16:0\.\.50257.*@file\.npy"):
        parse_spec("nonsense")


def test_whole_numbers_stay_below_the_upper_bound_and_reach_both_ends():
    (value,), _, _ = make_inputs(["randint:4000:0..5"])
    assert value.unique().tolist() == [0, 1, 2, 3, 4]


def test_the_seed_alone_decides_and_torch_is_left_alone():
    before = torch.get_rng_state()
    texts = ["randn:3,4", "x=randn:3,4", "i=randint:9:0..100"]
    first, again, other = (make_inputs(texts, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first[0][0], again[0][0]) and torch.equal(first[1]["i"], again[1]["i"])
    assert not torch.equal(first[0][0], other[0][0])
    assert not torch.equal(first[0][0], first[1]["x"])


def test_the_dtype_rounds_the_same_numbers():
    single, double = (make_inputs(["randn:50"], dtype=dtype)[0][0] for dtype in (torch.float32, torch.float64))
    assert torch.equal(single, double.float())


def test_files_of_every_kind_are_read_by_content(tmp_path):
    value = torch.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "a.npy", value.numpy())
    np.savez(tmp_path / "b.npz", value.numpy())
    torch.save(value, tmp_path / "c.pt")
    save_file({"t": value}, tmp_path / "d.safetensors")
    for name in ("a.npy", "b.npz", "c.pt", "d.safetensors"):
        os.rename(tmp_path / name, tmp_path / "data")
        (read,), kwargs, (line,) = make_inputs([f"@{tmp_path}/data:float64"])
        assert torch.equal(read, value.double()) and kwargs == {}
        assert line == f"@{tmp_path}/data:float64, float64 (2, 3)"
        assert list(make_inputs([f"x=@{tmp_path}/data"])[1]) == ["x"]


def test_several_named_tensors_are_keyword_arguments(tmp_path):
    np.savez(tmp_path / "batch", input_ids=np.ones((2, 3), dtype=np.int64), attention_mask=np.ones((2, 3)))
    path = tmp_path / "batch.npz"
    args, kwargs, lines = make_inputs([f"@{path}"])
    assert args == () and set(kwargs) == {"input_ids", "attention_mask"} and len(lines) == 2
    assert list(make_inputs([f"input_ids=@{path}"])[1]) == ["input_ids"]
    with pytest.raises(InputError, match="no entry 'other'"):
        make_inputs([f"other=@{path}"])
    torch.save((torch.ones(1), torch.zeros(2)), tmp_path / "pair")
    assert [len(each) for each in make_inputs([f"@{tmp_path}/pair"])[0]] == [1, 2]


def test_files_that_hold_no_inputs_are_input_errors(tmp_path):
    (tmp_path / "text").write_text("hello")
    torch.save({"lr": 0.1}, tmp_path / "no_tensor")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    for name in ("text", "no_tensor", "objects.npy", "missing.npy"):
        with pytest.raises(InputError, match=name):
            make_inputs([f"@{tmp_path}/{name}"])


def test_a_name_comes_once():
    with pytest.raises(InputError, match="two inputs of the name 'x'"):
        make_inputs(["x=randn:2", "x=ones:2"])
